//! A table that is written in any style is read back.

use own_table::{ReadOptions, Table};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_written_in_any_style_is_read_back(
        rows in prop::collection::vec(prop::collection::vec("[ -~\u{e4}\n]{0,6}", 3), 1..8),
        delimiter in prop::sample::select(b",;\t|".to_vec()),
        crlf: bool,
    ) {
        let mut writer = csv::WriterBuilder::new();
        writer.delimiter(delimiter).quote_style(csv::QuoteStyle::Always);
        if crlf {
            writer.terminator(csv::Terminator::CRLF);
        }
        let mut writer = writer.from_writer(Vec::new());
        writer.write_record(["x", "y", "z"]).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let bytes = writer.into_inner().unwrap();
        let table = Table::read("t.csv", bytes.as_slice(), &ReadOptions::default()).unwrap();
        let found = (0..table.len()).map(|row| (0..3).map(|at| table.text(row, at).unwrap().to_owned()).collect());
        prop_assert_eq!(found.collect::<Vec<Vec<String>>>(), rows);
    }
}
