//! The parsers of files from strangers, each on bytes: `fuzz/` feeds them, and a test replays the corpus. They may refuse a file, but
//! not panic.

use candle_core::{DType, Device};
use candle_losses::{Adam, EarlyStopping, OutputActivation, Parameters, ParamsAdam, mlp};
use candle_nn::Optimizer;
use own_table::{ColumnTypes, Encoding, ReadOptions, Table, Target};
use suite::checkpoint::{self, Plan};
use suite::idx;

/// What the checkpoints among the seeds were started with.
const PLAN: &str = r#"{"example":"PROGRAM","options":{},"samples":3,"digest":"0","validation":null,"parameters":{"layers.0.bias":[3],"layers.0.weight":[3,2],"layers.2.bias":[1],"layers.2.weight":[1,3]}}"#;

/// Images, labels, and both in gzip: the first byte decides.
pub fn idx_file(bytes: &[u8]) {
    let Some((kind, file)) = bytes.split_first() else { return };
    let mut unpacked = flate2::bufread::MultiGzDecoder::new(file);
    let _ = match kind % 4 {
        0 => idx::labels(&mut &*file),
        1 => idx::images(&mut &*file, 2),
        2 => idx::labels(&mut unpacked),
        _ => idx::images(&mut unpacked, 2),
    };
}

/// A table, its first column the target, its second one of categories, the others as they are found to be.
pub fn table_file(bytes: &[u8]) {
    for no_header in [false, true] {
        let Ok(table) = Table::read("fuzz.csv", bytes, &ReadOptions { no_header, ..Default::default() }) else {
            continue;
        };
        let categories = table.header().get(1).cloned().into_iter().collect::<Vec<_>>();
        let Some(target) = table.header().first() else { continue };
        for (wanted, categories) in [(None, Vec::new()), (Some(Target::Number), categories)] {
            let roles = ColumnTypes { categories, drop_missing: no_header, ..Default::default() };
            let Ok(schema) = table.schema(target, wanted, &roles) else { continue };
            let (training, test) = schema.split(&table, &schema.rows, 0.3, 1).expect("a fraction");
            schema.description(&table, test.len(), 0);
            let Ok(encoding) = Encoding::fit(&table, &schema, &training, "mse") else { continue };
            let (inputs, _) = encoding.transform(&table, &test, &Device::Cpu).expect("its own rows");
            encoding.one_hot(&inputs).expect("its own inputs");
            encoding.samples(&table, &training, &Device::Cpu).expect("its own rows");
        }
    }
}

/// Weights, with what was learned of a table, and a checkpoint.
pub fn weights_file(bytes: &[u8]) {
    let _ = Encoding::of_model(bytes);
    let Ok((parameters, mut adam, plan)) = training() else { return };
    let _ = parameters.load_safetensors(bytes);
    let Ok((checkpoint, _)) = checkpoint::from_bytes(bytes, &plan) else { return };
    let _ = checkpoint.restore(&parameters, &mut adam);
    let _ = EarlyStopping::new(parameters.all_vars(), 1).load_state(&checkpoint.tensors);
}

/// A training that the checkpoints of the corpus are of.
///
/// # Errors
/// None.
pub fn training() -> anyhow::Result<(Parameters, Adam, Plan)> {
    let parameters = Parameters::seeded(1);
    mlp(&[2, 3, 1], OutputActivation::Linear, parameters.var_builder(DType::F32, &Device::Cpu))?;
    let adam = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
    Ok((parameters, adam, serde_json::from_str(PLAN)?))
}
