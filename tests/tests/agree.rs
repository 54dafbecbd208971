//! Agreement of the real program with a naive model of it, on packets and policies by chance. `cargo xtask agree` runs more.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burst_tests::agree::{self, Settings, file::Case};
use burst_tests::dir::RunDir;

/// Every run of the tests is the same; other seeds are `cargo xtask agree`'s.
const SEED: u64 = 20_260_101;

fn settings(out: &Path) -> Settings {
    Settings { seed: SEED, cases: 10_000, per_policy: 200, out: out.to_owned(), most: 3, lie: None }
}

#[test]
fn the_program_and_the_model_agree_on_ten_thousand_packets() -> Result<()> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agree");
    let report = agree::run(&settings(&out), |_| ())?;
    eprint!("seed {SEED}: {}", report.table());
    let differing: Vec<_> = report.differing.iter().map(|(path, text)| format!("{}: {text}", path.display())).collect();
    assert!(differing.is_empty(), "seed {SEED}: {} differ\n{}", differing.len(), differing.join("\n"));
    assert_eq!(report.missing(), [], "seed {SEED}: answers that never were due: the packets got not everywhere");
    Ok(())
}

#[test]
fn every_case_that_once_differed_agrees() -> Result<()> {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/agree");
    let (files, differing) = agree::replay(&corpus)?;
    assert!(files > 0, "no case in {}", corpus.display());
    let differing: Vec<_> = differing.iter().map(|(path, text)| format!("{}: {text}", path.display())).collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    Ok(())
}

#[test]
fn a_difference_is_found_and_made_small_and_written_where_it_can_be_replayed() -> Result<()> {
    let dir = RunDir::new()?;
    let out = dir.subdir("agree")?;
    // The model believes in another next hop than the program was told of.
    let lie = |world: &mut burst_tests::model::world::World| {
        world.lines.iter_mut().for_each(|line| line.macs[0] = [2, 0, 0, 0, 0, 1]);
    };
    let report = agree::run(&Settings { most: 1, lie: Some(lie), ..settings(&out) }, |_| ())?;
    let [(path, text)] = &report.differing[..] else { panic!("{} differ", report.differing.len()) };
    assert!(text.contains("destination MAC: expected 02:00:00:00:00:01"), "{text}");
    let case = Case::read(path)?;
    assert!(case.frame.len() < 120, "{} bytes are left", case.frame.len());
    assert!(case.config.matches("[[link]]").count() == 1 && case.moment.slots.len() == 1, "{}", case.text());
    let (files, differing) = agree::replay(&out)?;
    assert_eq!((files, differing.len()), (1, 0), "told the truth, they agree");
    Ok(())
}
