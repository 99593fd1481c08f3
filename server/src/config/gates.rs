//! Feature gates: `--feature-gates=A=true,B=false`.

use super::value::{Value, parse_bool};

/// How settled a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless turned off, as a rule.
    Beta,
}

impl Stage {
    /// The stage as the metric `etcd_server_feature_enabled` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
        }
    }
}

macro_rules! gates {
    ($($(#[$doc:meta])* $gate:ident: $stage:ident = $default:literal,)*) => {
        /// A feature that can be turned on and off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Gate { $($(#[$doc])* $gate,)* }

        impl Gate {
            /// Every gate, in etcd's order.
            pub const ALL: &'static [Gate] = &[$(Gate::$gate,)*];

            /// The gate's name.
            pub fn name(self) -> &'static str {
                match self { $(Gate::$gate => stringify!($gate),)* }
            }

            /// The gate's stage.
            pub fn stage(self) -> Stage {
                match self { $(Gate::$gate => Stage::$stage,)* }
            }

            fn default(self) -> bool {
                match self { $(Gate::$gate => $default,)* }
            }
        }
    };
}

gates! {
    /// Every alpha gate that is not named itself.
    AllAlpha: Alpha = false,
    /// Every beta gate that is not named itself.
    AllBeta: Beta = false,
    /// Compare hashes with followers after a compaction.
    CompactHashCheck: Alpha = false,
    /// Answer keep-alives from the leader's memory.
    FastLeaseKeepAlive: Beta = true,
    /// Compare with peers before serving.
    InitialCorruptCheck: Alpha = false,
    /// Send what remains of long leases through the log.
    LeaseCheckpoint: Alpha = false,
    /// Keep those checkpoints on disk.
    LeaseCheckpointPersist: Alpha = false,
    /// Let important requests pass the back-pressure limit.
    PriorityRequest: Alpha = false,
    /// Bind outgoing peer connections to the advertised address.
    SetMemberLocalAddr: Alpha = false,
    /// Report NOT_SERVING while defragmenting.
    StopGRPCServiceOnDefrag: Alpha = false,
    /// Share a buffer between the reads of a write transaction; nothing to share here.
    TxnModeWriteWithSharedBuffer: Beta = true,
}

/// The settings of all gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gates {
    named: Vec<(Gate, bool)>,
}

impl Gates {
    /// Whether `gate` is on: as named, else through its stage's gate, else by default.
    pub fn enabled(&self, gate: Gate) -> bool {
        let named = |gate| self.named.iter().rev().find(|(name, _)| *name == gate).map(|(_, on)| *on);
        let stage = match gate {
            Gate::AllAlpha | Gate::AllBeta => None,
            _ if gate.stage() == Stage::Alpha => named(Gate::AllAlpha).filter(|on| *on),
            _ => named(Gate::AllBeta),
        };
        named(gate).or(stage).unwrap_or(gate.default())
    }

    /// Sets one gate.
    pub fn set(&mut self, gate: Gate, on: bool) {
        self.named.push((gate, on));
    }
}

impl Value for Gates {
    fn parse(text: &str) -> Result<Gates, String> {
        let mut gates = Gates { named: Vec::new() };
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = match item.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", item.trim())),
            };
            let on = parse_bool(value).ok_or_else(|| {
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
                )
            })?;
            let gate = Gate::ALL.iter().find(|gate| gate.name() == name);
            gates.named.push((*gate.ok_or_else(|| format!("unrecognized feature gate: {name}"))?, on));
        }
        Ok(gates)
    }

    /// Gates of several `--feature-gates` add up.
    fn merge(&mut self, text: &str) -> Result<(), String> {
        self.named.extend(Gates::parse(text)?.named);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stages_and_names() {
        let mut gates = Gates::parse("").unwrap();
        assert!(gates.enabled(Gate::FastLeaseKeepAlive));
        assert!(!gates.enabled(Gate::InitialCorruptCheck));
        gates.merge("AllAlpha=true,LeaseCheckpoint=false").unwrap();
        assert!(gates.enabled(Gate::InitialCorruptCheck));
        assert!(!gates.enabled(Gate::LeaseCheckpoint));
    }

    #[test]
    fn refusals() {
        assert_eq!(Gates::parse("X=true").unwrap_err(), "unrecognized feature gate: X");
        assert_eq!(Gates::parse("LeaseCheckpoint").unwrap_err(), "missing bool value for LeaseCheckpoint");
        assert_eq!(
            Gates::parse("LeaseCheckpoint=maybe").unwrap_err(),
            "invalid value of LeaseCheckpoint=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
    }
}
