//! `snapshot verify`: whether a snapshot file is sound, digest, pages and rows. etcd has no such command.

use std::ffi::OsString;
use std::path::Path;

use manners::failure::{Failure, exit};
use manners::json::Object;
use manners::output::{self, Format, line};
use manners::progress::Progress;
use snapshot::verify::{Finding, Report, Severity};

use crate::file::{self, Held};
use crate::{Settings, print};

/// What its help says.
pub const ABOUT: &str =
    "Checks everything in a snapshot file, without a server: the digest, every page, and what every row
says. Prints what was found, in --write-out simple or json; the status is 0 when a restore loses
nothing, else 1. The file stays as it is.";

/// The argument of `snapshot verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[arg(value_name = "<filename>")]
    words: Vec<OsString>,
}

impl Verify {
    /// Checks the file and prints what was found.
    ///
    /// # Errors
    /// Status 1 when the file cannot be read or is not sound.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let path = file::only(&self.words, "snapshot verify")?;
        file::must_exist(path)?;
        let format = Format::parse(&settings.write_out)?;
        if !matches!(format, Format::Simple | Format::Json) {
            return Err(print::unsupported(format));
        }
        let held = Held::open(path, settings.lock_timeout)?;
        let mut progress = Progress::new("verifying");
        let report = snapshot::verify::verify(held.path(), &mut |done, total| progress.set(done, total));
        drop(progress);
        let report = report.map_err(Failure::general)?;
        let mut out = Vec::new();
        match format {
            Format::Json => print::json_line(&mut out, |o| json(o, path, &report)),
            _ => simple(&mut out, &report),
        }
        output::write(&out)?;
        if report.is_sound() {
            return Ok(());
        }
        let shown = path.display();
        Err(Failure::new(
            exit::ERROR,
            format!("{shown} is not sound: a restore would fail, or lose something"),
        ))
    }
}

fn simple(out: &mut Vec<u8>, report: &Report) {
    line!(out, "size: {} bytes, image: {} bytes", report.file_len, report.image_len);
    line!(out, "revision: {}, compacted: {}", report.revision, report.compact_revision);
    line!(out, "keys: {}, deletes: {}", report.live_keys, report.tombstones);
    let rows: Vec<String> = report.buckets.iter().map(|(name, rows)| format!("{name} {rows}")).collect();
    line!(out, "rows: {}", rows.join(", "));
    for finding in &report.findings {
        let mut place = Vec::new();
        if let Some(page) = finding.page {
            place.push(format!("page {page}"));
        }
        if let Some(bucket) = &finding.bucket {
            place.push(format!("bucket {bucket}"));
        }
        if let Some(key) = &finding.key {
            place.push(format!("key {}", hex(key)));
        }
        place.push(finding.text.clone());
        line!(out, "{}: {}", severity(finding), place.join(": "));
    }
    let more = (report.errors + report.notes).saturating_sub(report.findings.len() as u64);
    if more > 0 {
        line!(out, "and {more} more like these");
    }
    line!(out, "{}", if report.is_sound() { "sound" } else { "not sound" });
}

fn json(o: &mut Object<'_>, path: &Path, report: &Report) {
    o.string("file", &path.to_string_lossy());
    o.value("sound", report.is_sound());
    o.value("fileSize", report.file_len);
    o.value("imageSize", report.image_len);
    o.value("revision", report.revision);
    o.value("compactRevision", report.compact_revision);
    o.value("totalKey", report.live_keys);
    o.value("tombstones", report.tombstones);
    o.object("buckets", |o| {
        for (name, rows) in &report.buckets {
            o.value(name, rows);
        }
    });
    o.objects("findings", &report.findings, |o, finding| {
        o.string("severity", severity(finding));
        if let Some(page) = finding.page {
            o.value("page", page);
        }
        if let Some(bucket) = &finding.bucket {
            o.string("bucket", bucket);
        }
        if let Some(key) = &finding.key {
            o.string("key", &hex(key));
        }
        o.string("text", &finding.text);
    });
    o.value("errors", report.errors);
    o.value("notes", report.notes);
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Note => "note",
        Severity::Error => "error",
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(severity: Severity) -> Report {
        let finding = Finding {
            bucket: Some("lease".to_owned()),
            key: Some(vec![0, 255]),
            page: None,
            severity,
            text: "\"odd\"".to_owned(),
        };
        Report {
            file_len: 20_512,
            image_len: 20_480,
            buckets: vec![("key".to_owned(), 6), ("lease".to_owned(), 1)],
            tombstones: 1,
            live_keys: 4,
            revision: 7,
            compact_revision: 3,
            findings: vec![finding],
            errors: if severity == Severity::Error { 3 } else { 0 },
            notes: if severity == Severity::Note { 3 } else { 0 },
        }
    }

    #[test]
    fn people_read_it() {
        let mut out = Vec::new();
        simple(&mut out, &report(Severity::Error));
        let text = "size: 20512 bytes, image: 20480 bytes\nrevision: 7, compacted: 3\nkeys: 4, deletes: 1\n\
                    rows: key 6, lease 1\nerror: bucket lease: key 00ff: \"odd\"\nand 2 more like these\nnot sound\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }

    #[test]
    fn scripts_read_it() {
        let mut out = Vec::new();
        print::json_line(&mut out, |o| json(o, Path::new("a.db"), &report(Severity::Note)));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"file":"a.db","sound":true,"fileSize":20512,"imageSize":20480,"revision":7,"compactRevision":3,"#,
                r#""totalKey":4,"tombstones":1,"buckets":{"key":6,"lease":1},"findings":[{"severity":"note","#,
                r#""bucket":"lease","key":"00ff","text":"\"odd\""}],"errors":0,"notes":3}"#,
                "\n"
            )
        );
    }
}
