//! Which cells there are, and what becomes of a matrix whose cells end badly or that is ended itself.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ::tests::Program;

use super::*;
use crate::driver::Load;
use crate::history::Run;

#[test]
fn every_cell_can_be_run() {
    for matrix in [Matrix::full(180), Matrix::short()] {
        for (workload, nemesis) in matrix.cells {
            assert!(workload::by_name(&workload).is_some(), "{workload}");
            assert!(nemesis::by_name(&nemesis).is_some(), "{nemesis}");
        }
    }
}

#[test]
fn nemeses_that_are_named_replace_those_of_the_selection() {
    let mut matrix = Matrix::short();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    matrix.choose(&names(&["set", "lock"]), &names(&["none", "kill"])).expect("they exist");
    let cells: Vec<_> = matrix.cells.iter().map(|(w, n)| (w.as_str(), n.as_str())).collect();
    assert_eq!(cells, [("set", "none"), ("set", "kill"), ("lock", "none"), ("lock", "kill")]);
    assert!(matrix.choose(&names(&["nobody"]), &[]).is_err());
}

/// A program that stands for this one: it says when it begins and ends, and leaves the results that were prepared
/// for its cell; with none prepared it is killed.
const RUNS: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    --workload) workload=$2 ;;
    --nemesis) nemesis=$2 ;;
    --out) out=$2 ;;
    esac
    shift
done
here=$(dirname "$0")
echo "begin $workload-$nemesis" >>"$here/calls"
sleep 0.3
echo "end $workload-$nemesis" >>"$here/calls"
case $nemesis in
clock) echo "jepsen: the nemesis does not fit: no clocks" >&2; exit 3 ;;
esac
cp "$here/$workload-$nemesis.json" "$out/results.json" || kill -9 $$
touch "$out/history.json" "$out/history.edn"
"#;

struct Stage {
    dir: tempfile::TempDir,
    seconds: u64,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { dir: tempfile::tempdir().expect("a directory"), seconds: 15 };
        stage.program("jepsen", RUNS);
        stage.program("etcd", "#!/bin/sh\necho Quorate Version: 1.2.3\n");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), permissions).expect("made to run");
    }

    fn settings(&self, workload: &str, nemesis: &str, seed: u64) -> Settings {
        Settings {
            workload: workload.to_owned(),
            nemesis: nemesis.to_owned(),
            seed,
            time: Duration::from_secs(self.seconds),
            members: 3,
            program: Program::at(self.path("etcd"), true),
            load: Load { clients: 8, rate: 250.0, patience: Duration::from_secs(3) },
            flags: Vec::new(),
            loopback: false,
            mutant: None,
            control: false,
        }
    }

    /// From now on this cell comes to an end.
    fn succeeds(&self, workload: &str, nemesis: &str, seed: u64) {
        let settings = self.settings(workload, nemesis, seed);
        let program = version(&settings.program).expect("it says");
        let (workload, nemesis) = (workload.to_owned(), nemesis.to_owned());
        let name = format!("{workload}-{nemesis}.json");
        let run = Run { seed, command: settings.command(), workload, nemesis, program, ..Run::default() };
        let results = Results { run, ..Results::default() };
        std::fs::write(self.path(&name), serde_json::to_string(&results).expect("text")).expect("written");
    }

    /// Runs all `set` cells under these, and gives what was begun and ended, in its order.
    async fn run(&self, nemeses: &[&str], jobs: usize, resume: bool) -> (Result<bool>, Vec<String>, String) {
        std::fs::remove_file(self.path("calls")).ok();
        let mut matrix = Matrix::full(self.seconds);
        let nemeses: Vec<String> = nemeses.iter().map(|name| (*name).to_owned()).collect();
        matrix.choose(&["set".to_owned()], &nemeses).expect("they exist");
        let settings = |workload: &str, nemesis: &str, seed| Ok(self.settings(workload, nemesis, seed));
        let (jepsen, out) = (self.path("jepsen"), self.path("out"));
        let way = Way { jepsen, out, jobs, resume, histories: false };
        let well = matrix.run(5, settings, &way).await;
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let table = std::fs::read_to_string(way.out.join("matrix.md")).expect("the table");
        (well, calls.lines().map(str::to_owned).collect(), table)
    }
}

/// A matrix vanished after some of its cells, with all of its table.
/// A cell that is killed must be a line in the table, and a matrix must go on where it ended.
#[tokio::test]
async fn a_cell_that_is_killed_is_told_and_run_again_alone() {
    let stage = Stage::new();
    for (nemesis, seed) in [("none", 5), ("pause", 7)] {
        stage.succeeds("set", nemesis, seed);
    }
    let nemeses = ["none", "kill", "pause", "clock"];
    let (well, calls, table) = stage.run(&nemeses, 1, false).await;
    assert_eq!((well.expect("a table"), calls.len()), (false, 8), "{table}");
    assert!(table.contains("not run") && table.contains("signal: 9"), "{table}");
    assert!(table.contains("the nemesis does not fit: no clocks"), "{table}");
    assert_eq!(table.matches("no anomalies").count(), 2, "{table}");
    assert!(!stage.path("out/set-none/history.json").exists());

    // Only what has no results is run, also under other seeds, and its end is well: what does not fit is no harm.
    stage.succeeds("set", "kill", 6);
    let (well, calls, table) = stage.run(&nemeses, 1, true).await;
    assert!(well.expect("a table"), "{table}");
    assert_eq!(calls, ["begin set-kill", "end set-kill", "begin set-clock", "end set-clock"]);
    assert_eq!(table.matches("no anomalies").count(), 3, "{table}");

    // Another version, or another time, is another run.
    stage.program("etcd", "#!/bin/sh\necho Quorate Version: 1.2.4\n");
    let (_, calls, _) = stage.run(&["none"], 1, true).await;
    assert_eq!(calls.len(), 2);
    let stage = Stage { seconds: 16, ..stage };
    let (_, calls, _) = stage.run(&["none"], 1, true).await;
    assert_eq!(calls.len(), 2);
}

/// Results of an earlier matrix must not stand for a cell that came to nothing in this one.
#[tokio::test]
async fn old_results_do_not_count() {
    let stage = Stage::new();
    stage.succeeds("set", "none", 5);
    assert!(stage.run(&["none"], 1, false).await.0.expect("a table"));
    std::fs::remove_file(stage.path("set-none.json")).expect("it was there");
    let (well, _, table) = stage.run(&["none"], 1, false).await;
    assert!(!well.expect("a table") && table.contains("signal: 9"), "{table}");
}

#[tokio::test]
async fn so_many_cells_are_run_at_once() {
    let stage = Stage::new();
    let nemeses = ["none", "kill", "pause", "slow"];
    for (nemesis, seed) in nemeses.iter().zip(5..) {
        stage.succeeds("set", nemesis, seed);
    }
    for jobs in [1, 2] {
        let (well, calls, table) = stage.run(&nemeses, jobs, false).await;
        assert!(well.expect("a table"), "{table}");
        let mut now = 0;
        let at_once = calls.iter().map(|call| {
            now += if call.starts_with("begin") { 1 } else { -1 };
            now
        });
        assert_eq!(at_once.max(), Some(jobs as i32), "{calls:?}");
        let rows: Vec<&str> =
            table.lines().skip(2).map(|row| row.split_whitespace().nth(3).unwrap()).collect();
        assert_eq!(rows, nemeses, "{table}");
    }
}
