//! The corpus of the fuzzers, replayed: each file, cut anywhere in its first part, and with each byte there changed.

use candle_core::{Device, Tensor};
use candle_losses::{Checkpoint, EarlyStopping};
use candle_nn::Optimizer;
use own_table::{Encoding, ReadOptions, Table};

fn replay(target: &str, parse: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
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
    replay("idx", properties::idx_file);
}

#[test]
fn tables_are_read_or_refused() {
    replay("table", properties::table_file);
}

/// Writes the seed of a checkpoint again, for a change of its format:
/// `cargo test -p candle-losses-properties --test corpus -- --ignored`.
#[test]
#[ignore = "writes a seed"]
fn write_checkpoint_seed() {
    let (parameters, mut adam, plan) = properties::training().unwrap();
    let mut stopping = EarlyStopping::new(parameters.all_vars(), 1);
    let sums = parameters.all_vars().iter().map(|var| var.sqr()?.sum_all()).collect::<Result<Vec<_>, _>>().unwrap();
    adam.backward_step(&Tensor::stack(&sums, 0).unwrap().sum_all().unwrap()).unwrap();
    stopping.should_stop(0.5).unwrap();
    let mut checkpoint = Checkpoint::new(&parameters, &adam, 2).unwrap();
    checkpoint.tensors.extend(stopping.state().unwrap());
    checkpoint.tensors.insert("losses".into(), Tensor::new(&[1f32, 0.5], &Device::Cpu).unwrap());
    checkpoint.metadata.insert("candle-losses.plan".into(), serde_json::to_string(&plan).unwrap());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/weights/checkpoint");
    checkpoint.save(path).unwrap();
}

/// That the seeds get past the checks at the door.
#[test]
fn corpus_seeds_parse() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let read = |seed: &str| std::fs::read(folder.join(seed)).unwrap();
    let (parameters, mut adam, plan) = properties::training().unwrap();
    parameters.load_safetensors(&read("weights/weights")).unwrap();
    Encoding::of_model(&read("weights/table")).unwrap();
    let (checkpoint, losses) = suite::checkpoint::from_bytes(&read("weights/checkpoint"), &plan).unwrap();
    checkpoint.restore(&parameters, &mut adam).unwrap();
    EarlyStopping::new(parameters.all_vars(), 1).load_state(&checkpoint.tensors).unwrap();
    assert_eq!((losses, checkpoint.completed_steps), (vec![1.0, 0.5], 2));
    assert_eq!(suite::idx::labels(&mut &read("idx/labels")[1..]).unwrap(), [7, 9]);
    Table::read("seed", read("table/quotes").as_slice(), &ReadOptions::default()).unwrap();
}

#[test]
fn weights_are_read_or_refused() {
    replay("weights", properties::weights_file);
}
