//! The parsers of files from strangers, each on bytes and without a file: what `fuzz/` feeds, and a test replays. They may
//! refuse, but not panic.

use crate::cli::{Plan, read_checkpoint};
use crate::data::table::{Encoding, Reading, Roles, Table, Target};
use crate::data::{idx_images, idx_labels};
use crate::{Activation, Adam, Parameters, ParamsAdam, mlp};
use candle_core::{DType, Device};
use candle_nn::Optimizer;

/// What the checkpoints among the seeds were started with.
const PLAN: &str = r#"{"example":"PROGRAM","options":{},"samples":3,"digest":0,"parameters":{"layers.0.bias":[3],"layers.0.weight":[3,2],"layers.2.bias":[1],"layers.2.weight":[1,3]}}"#;

/// Images, labels, and both in gzip: the first byte decides.
pub fn idx(bytes: &[u8]) {
    let Some((kind, file)) = bytes.split_first() else { return };
    let mut unpacked = flate2::bufread::MultiGzDecoder::new(file);
    let _ = match kind % 4 {
        0 => idx_labels(&mut &*file),
        1 => idx_images(&mut &*file, 2),
        2 => idx_labels(&mut unpacked),
        _ => idx_images(&mut unpacked, 2),
    };
}

/// A table, its first column the target, its second one of categories, the others as they are found to be.
pub fn table(bytes: &[u8]) {
    for no_header in [false, true] {
        let Ok(table) = Table::read("fuzz.csv", bytes, &Reading { no_header, delimiter: None }) else { continue };
        let categories = table.header().get(1).cloned().into_iter().collect::<Vec<_>>();
        let Some(target) = table.header().first() else { continue };
        for (wanted, categories) in [(None, Vec::new()), (Some(Target::Number), categories)] {
            let roles = Roles { categories, drop_missing: no_header, ..Default::default() };
            let Ok(plan) = table.plan(target, wanted, &roles) else { continue };
            let (training, test) = plan.split(&table, &plan.rows, 0.3, 1);
            plan.description(&table, test.len(), 0);
            let Ok(encoding) = Encoding::learn(&table, &plan, &training, "mse") else { continue };
            let (inputs, _) = encoding.inputs(&table, &test, &Device::Cpu).expect("its own rows");
            encoding.expand(&inputs).expect("its own inputs");
            encoding.samples(&table, &training, &Device::Cpu).expect("its own rows");
        }
    }
}

/// Weights, with what was learned of a table, and a checkpoint.
pub fn weights(bytes: &[u8]) {
    let _ = Encoding::of_model(bytes);
    let Ok((parameters, mut adam, plan)) = training() else { return };
    let _ = parameters.load_safetensors(bytes);
    let _ = read_checkpoint(bytes, &plan, &parameters, &mut adam, |batches| batches);
}

fn training() -> anyhow::Result<(Parameters, Adam, Plan)> {
    let parameters = Parameters::seeded(1);
    mlp(&[2, 3, 1], Activation::Linear, parameters.builder(DType::F32, &Device::Cpu))?;
    let adam = Adam::new(parameters.vars(), ParamsAdam::default())?;
    Ok((parameters, adam, serde_json::from_str(PLAN)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, parse: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
        let mut seeds = 0;
        for seed in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            // The seed itself, cut anywhere in its first part, and with each byte there another.
            parse(&bytes);
            for at in 0..bytes.len().min(400) {
                parse(&bytes[..at]);
                let mut changed = bytes.clone();
                for flip in [0x01, 0x80, 0xff] {
                    changed[at] = bytes[at] ^ flip;
                    parse(&changed);
                }
            }
            seeds += 1;
        }
        assert!(seeds >= 4, "{target} has {seeds} seeds");
    }

    #[test]
    fn idx_files_are_read_or_refused() {
        replay("idx", idx);
    }

    #[test]
    fn tables_are_read_or_refused() {
        replay("table", table);
    }

    /// That the seeds get past the checks at the door.
    #[test]
    fn the_seeds_are_what_they_are_called() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
        let read = |seed: &str| std::fs::read(folder.join(seed)).unwrap();
        let (parameters, mut adam, plan) = training().unwrap();
        parameters.load_safetensors(&read("weights/weights")).unwrap();
        Encoding::of_model(&read("weights/table")).unwrap();
        let losses = read_checkpoint(&read("weights/checkpoint"), &plan, &parameters, &mut adam, |batches| batches);
        assert_eq!(losses.unwrap(), [1.0, 0.5]);
        assert_eq!(idx_labels(&mut &read("idx/labels")[1..]).unwrap(), [7, 9]);
        Table::read("seed", read("table/quotes").as_slice(), &Reading::default()).unwrap();
    }

    #[test]
    fn weights_are_read_or_refused() {
        replay("weights", weights);
    }
}
