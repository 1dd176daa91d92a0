//! From the bytes of a file to its cells: encoding, delimiter, quotes and header are found out.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::str::FromStr;

use super::value::{self, Decimal, Evidence};

/// The delimiter between two cells of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimiter {
    /// One character of ASCII.
    Byte(u8),
    /// Any number of blanks and tabs.
    Blanks,
}

impl FromStr for Delimiter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "comma" => Ok(Self::Byte(b',')),
            "semicolon" => Ok(Self::Byte(b';')),
            "tab" | "\\t" => Ok(Self::Byte(b'\t')),
            "bar" => Ok(Self::Byte(b'|')),
            "blanks" | "blank" | " " => Ok(Self::Blanks),
            _ => match text.as_bytes() {
                [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"'\r\n".contains(byte) => {
                    Ok(Self::Byte(*byte))
                }
                _ => Err("needs comma, semicolon, tab, bar, blanks, or a single character".into()),
            },
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Byte(b',') => f.write_str("commas"),
            Self::Byte(b';') => f.write_str("semicolons"),
            Self::Byte(b'\t') => f.write_str("tabs"),
            Self::Byte(b'|') => f.write_str("bars"),
            Self::Byte(byte) => write!(f, "{:?}", char::from(*byte)),
            Self::Blanks => f.write_str("blanks"),
        }
    }
}

/// How to read a file. What is not said is found out from its first lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// The delimiter between two cells.
    pub delimiter: Option<Delimiter>,
    /// Whether the first line is a row like the others, not the names of the columns.
    pub no_header: bool,
    /// The mark before decimals.
    pub decimal: Option<Decimal>,
}

/// The cells of a file, row by row, in one text.
#[derive(Debug, Default)]
pub(super) struct Cells {
    text: String,
    /// Where each cell ends.
    ends: Vec<u32>,
    /// The line that each row begins on.
    pub lines: Vec<u32>,
    pub header: Vec<String>,
    /// Notes on how the file was read.
    pub notes: Vec<String>,
    /// Whether commas separate the cells.
    pub has_commas: bool,
}

impl Cells {
    /// Leaves the last row out.
    pub fn pop(&mut self) {
        self.lines.pop();
        self.ends.truncate(self.lines.len() * self.header.len());
        self.text.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    pub fn rows(&self) -> usize {
        self.lines.len()
    }

    pub fn get(&self, row: usize, column: usize) -> &str {
        let i = row * self.header.len() + column;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start as usize..self.ends[i] as usize]
    }
}

/// The cells of a file; `name` is what errors call it.
pub(super) fn read(name: &str, mut file: impl Read, reading: &ReadOptions) -> Result<Cells> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
    let mut notes = Vec::new();
    let text = decode(name, bytes, &mut notes)?;
    ensure!(text.len() < u32::MAX as usize, "{name} is larger than 4 GB, more than can be read");
    let (start, said) = separator_line(&text);
    if said.is_some() {
        notes.push("Its first line names the delimiter".into());
    }
    let dialect = dialect(&text[start..], reading.delimiter.or(said));
    let mut scanner = Scanner { at: start, line: 1 + u32::from(said.is_some()), ..Scanner::new(&text, dialect) };
    skip_preamble(&mut scanner, reading.no_header, &mut notes);
    let mut record = Record::default();
    let begin = scanner;
    ensure!(scanner.next(&mut record), "{name} is empty");
    let first = record.cells().map(str::to_owned).collect::<Vec<_>>();
    let has_commas = dialect.delimiter == Delimiter::Byte(b',');
    if !has_commas {
        notes.push(format!("Read as separated by {}", dialect.delimiter));
    }
    let mut cells = Cells { notes, has_commas, ..Default::default() };

    let is_numbers = first.iter().all(|cell| cell.parse::<f64>().is_ok());
    if is_numbers && !reading.no_header {
        cells.notes.push("The first line is numbers, so it is taken for a row, as with --no-header".into());
    }
    let has_header = !(reading.no_header || is_numbers);
    if !has_header {
        scanner = begin;
    }
    // The number of cells that rows have, which a header may be one short of: R leaves out the name of its row names. A
    // delimiter at the end of each row is no cell.
    let mut ahead = Scanner { ..scanner };
    let width = if ahead.next(&mut record) { record.ends.len() } else { first.len() };
    let is_ended = width == first.len() + 1 && record.cells().last() == Some("");
    let mut header = if has_header { first } else { (1..=width).map(|i| format!("column {i}")).collect() };
    if has_header && width == header.len() + 1 && !is_ended {
        ensure!(
            has_row_names(&scanner),
            "{name}, read as separated by {}: rows have {width} cells, but the header has {}; fix the header, or set --delimiter",
            dialect.delimiter,
            header.len()
        );
        cells.notes.push("The header has no name for the first column, which is taken for names of the rows".into());
        header.insert(0, String::new());
    }
    if has_header && 2 * header.iter().filter(|cell| value::number(cell, false).is_some()).count() > header.len() {
        cells.notes.push("Most names in the header are numbers; if it is a row, take --no-header".into());
    }
    cells.header = named(header, &mut cells.notes);
    let columns = cells.header.len();
    // At once, as to grow takes twice the room for a while.
    cells.text.reserve_exact(text.len());
    cells.ends.reserve_exact(columns * text.bytes().filter(|byte| *byte == b'\n').count());

    let (mut odd, mut odd_rows) = (Vec::new(), 0);
    while scanner.next(&mut record) {
        let found = record.ends.len();
        let is_whole = found == columns || (found == columns + 1 && record.cells().last() == Some(""));
        if !is_whole {
            odd_rows += 1;
            if odd.len() < 3 {
                odd.push(format!("line {} has {found}", record.line));
            }
            continue;
        }
        for cell in record.cells().take(columns) {
            cells.text.push_str(cell);
            cells.ends.push(cells.text.len() as u32);
        }
        cells.lines.push(record.line);
    }
    if let Some(line) = scanner.open {
        bail!("{name}: a quote that begins on line {line} never ends; close it, or take it out")
    }
    if odd_rows > 0 {
        bail!(
            "{name}, read as separated by {}: {odd_rows} of {} rows do not have the {columns} cells of the header: {}{}; fix \
             them, or set --delimiter",
            dialect.delimiter,
            odd_rows + cells.rows(),
            odd.join(", "),
            if odd_rows > odd.len() { ", …" } else { "" },
        )
    }
    ensure!(cells.rows() > 0, "{name} has a header but no rows");
    Ok(cells)
}

/// Whether the first cells of the rows are names, as R writes them: all different, and no numbers but 1, 2, 3, ….
fn has_row_names(scanner: &Scanner) -> bool {
    let (mut ahead, mut record, mut seen) = (*scanner, Record::default(), HashSet::new());
    let (mut are_counted, mut are_words) = (true, true);
    while ahead.next(&mut record) {
        let cell = record.cells().next().unwrap_or_default().to_owned();
        are_counted &= cell == (seen.len() + 1).to_string();
        are_words &= value::number(&cell, false).is_none();
        if !seen.insert(cell) {
            return false;
        }
    }
    are_counted || are_words
}

/// Each column with a name of its own.
fn named(header: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(header.len());
    for (i, name) in header.into_iter().enumerate() {
        let base = if name.is_empty() { format!("column {}", i + 1) } else { name };
        let mut own = base.clone();
        let mut number = 1;
        while !seen.insert(own.clone()) {
            number += 1;
            own = format!("{base} {number}");
        }
        if number > 1 {
            notes.push(format!("More than one column is called {base}: number {} is now {own}", i + 1));
        }
        names.push(own);
    }
    names
}

/// The text of a file, unpacked and in UTF-8.
fn decode(name: &str, mut bytes: Vec<u8>, notes: &mut Vec<String>) -> Result<String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let read = flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked);
        read.with_context(|| format!("unpacking {name}"))?;
        bytes = unpacked;
    }
    let foreign: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "an Excel workbook or another zip archive"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
        (b"PAR1", "a Parquet file"),
        (b"\x89HDF", "an HDF5 file"),
        (b"%PDF", "a PDF"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
        (b"BZh", "packed by bzip2"),
    ];
    if let Some((_, what)) = foreign.iter().find(|(start, _)| bytes.starts_with(start)) {
        bail!("{name} is {what}: save the table as CSV first")
    }
    if bytes.starts_with(b"{") || bytes.starts_with(b"[{") {
        bail!("{name} looks like JSON: save the table as CSV first")
    }
    let is_wide = |odd: usize| {
        let some = &bytes[..bytes.len().min(400)];
        some.len() > 3 && some.len().is_multiple_of(2) && some.iter().skip(odd).step_by(2).all(|&byte| byte == 0)
    };
    let wide = match bytes.as_slice() {
        [0xff, 0xfe, ..] => Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => Some(encoding_rs::UTF_16BE),
        _ if is_wide(1) => Some(encoding_rs::UTF_16LE),
        _ if is_wide(0) => Some(encoding_rs::UTF_16BE),
        _ => None,
    };
    if let Some(encoding) = wide {
        notes.push(format!("Read as {}", encoding.name()));
        return Ok(encoding.decode(&bytes).0.into_owned());
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Err(error) if !error.as_bytes().contains(&0) => {
            notes.push("It is not UTF-8: read as Latin-1".into());
            Ok(encoding_rs::WINDOWS_1252.decode_without_bom_handling(error.as_bytes()).0.into_owned())
        }
        _ => bail!("{name} is not a text file: save the table as CSV first"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Dialect {
    delimiter: Delimiter,
    quote: u8,
}

/// How many lines at the start of a file are looked at.
const LOOKED_AT: usize = 1000;

/// The delimiter under which the first lines have as many cells as each other.
fn dialect(text: &str, delimiter: Option<Delimiter>) -> Dialect {
    let lines = text.match_indices('\n').nth(LOOKED_AT).map_or(text.len(), |(end, _)| end);
    let (start, is_part) = (&text[..lines], lines < text.len());
    // Among equals the first; commas may be within numbers.
    let all = [
        Delimiter::Byte(b'\t'),
        Delimiter::Byte(b';'),
        Delimiter::Byte(b'|'),
        Delimiter::Byte(b','),
        Delimiter::Blanks,
    ];
    let delimiters = delimiter.as_ref().map_or(&all[..], std::slice::from_ref);
    let mut best = None;
    for (rank, &delimiter) in delimiters.iter().enumerate() {
        for quote in [b'"', b'\''] {
            let dialect = Dialect { delimiter, quote };
            let mut scanner = Scanner::new(start, dialect);
            let (mut record, mut widths, mut quoted, mut odd) = (Record::default(), Vec::new(), 0, 0);
            let (mut cells, mut plain) = (0usize, 0usize);
            while scanner.next(&mut record) {
                widths.push(record.ends.len());
                quoted += record.quoted;
                odd += record.odd;
                cells += record.ends.len();
                plain += record.cells().filter(|cell| is_plain(cell)).count();
            }
            // A row that continues behind what is looked at.
            if scanner.open.is_some() && is_part {
                widths.pop();
            }
            if quote == b'\'' && quoted == 0 {
                continue;
            }
            let Some(usual) = most_frequent(&widths) else { continue };
            // The header may be one short, or a title.
            let rows = if widths.len() > 1 { &widths[1..] } else { &widths[..] };
            let alike = rows.iter().filter(|&&width| width == usual).count();
            let is_even = usual > 1 && alike as f64 / rows.len() as f64 > 0.9 && scanner.open.is_none();
            let has_header = widths[0] == usual;
            // Under a wrong delimiter many cells still have the right one in them. In percent, so that a few do not decide.
            let plain = 100 * plain / cells.max(1);
            let score = (is_even, odd == 0, usual > 1, has_header, plain, -(rank as isize), quoted, quote == b'"');
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, dialect));
            }
        }
    }
    best.map_or(Dialect { delimiter: Delimiter::Byte(b','), quote: b'"' }, |(_, dialect)| dialect)
}

/// Whether a cell has no character in it that could be a delimiter, but for a number that can only be read with it.
fn is_plain(cell: &str) -> bool {
    !cell.contains([',', ';', '|', '\t']) || matches!(value::evidence(cell), Evidence::Only(_))
}

fn most_frequent(widths: &[usize]) -> Option<usize> {
    let mut counts = HashMap::new();
    for &width in widths {
        *counts.entry(width).or_insert(0usize) += 1;
    }
    counts.into_iter().max_by_key(|&(width, count)| (count, width)).map(|(width, _)| width)
}

/// The delimiter that a first line `sep=;` names, as Excel reads it, and where the next line begins.
fn separator_line(text: &str) -> (usize, Option<Delimiter>) {
    let end = text.find(['\r', '\n']).unwrap_or(text.len());
    let line = text[..end].trim_matches('"');
    let said = line.get(..4).filter(|start| start.eq_ignore_ascii_case("sep=")).and_then(|_| line[4..].parse().ok());
    let next = text[end..].find(|c| c != '\r' && c != '\n').map_or(text.len(), |length| end + length);
    if said.is_some() { (next, said) } else { (0, None) }
}

/// Passes comments and titles above the header: lines that begin with # or have a single cell, where rows have more.
fn skip_preamble(scanner: &mut Scanner, no_header: bool, notes: &mut Vec<String>) {
    let mut record = Record::default();
    let (mut ahead, mut rows) = (*scanner, Vec::new());
    // Of the first rows, which are enough to know how many cells they have.
    while rows.len() < LOOKED_AT && ahead.next(&mut record) {
        rows.push(record.cells().map(str::to_owned).collect::<Vec<_>>());
    }
    let Some(usual) = most_frequent(&rows.iter().map(Vec::len).collect::<Vec<_>>()).filter(|&usual| usual > 1) else {
        return;
    };
    // Such as a table of hashtags.
    let is_mostly_marked = 2 * rows.iter().filter(|row| row[0].starts_with('#')).count() > rows.len();
    let is_number = |cell: &String| value::number(cell, false).or_else(|| value::number(cell, true)).is_some();
    let has_number = |row: &Vec<String>| row.iter().any(is_number);
    let is_preamble = |i: usize| {
        let filled = rows[i].iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>();
        let Some(next) = rows.get(i + 1) else { return false };
        if rows[i][0].starts_with('#') && !is_mostly_marked {
            // A header may begin with it, too; then rows follow.
            let is_header =
                |row: &Vec<String>, next: Option<&Vec<String>>| !has_number(row) && next.is_some_and(has_number);
            return rows[i].len() != usual || next[0].starts_with('#') || is_header(next, rows.get(i + 2));
        }
        if no_header || filled.iter().any(|cell| is_number(cell)) {
            return false;
        }
        match rows[i].len() {
            // Of two columns a header of one may be R's, which has no name for its row names.
            1 => usual > 2 || !has_number(next) || next.len() == 1,
            _ => usual > 2 && filled.len() == 1,
        }
    };
    let count = (0..rows.len()).take_while(|&i| is_preamble(i)).count();
    if count == 0 {
        return;
    }
    let first = rows[0].join(" ");
    for _ in 0..count {
        scanner.next(&mut record);
    }
    let shown = first.trim().chars().take(40).collect::<String>();
    notes.push(format!("{count} {} above the header left out: {shown:?}", if count == 1 { "line" } else { "lines" }));
}

/// The cells of a row.
#[derive(Default)]
struct Record {
    line: u32,
    text: String,
    ends: Vec<usize>,
    /// How many cells are quoted, and how many have a quote where none belongs.
    quoted: usize,
    odd: usize,
}

impl Record {
    fn cells(&self) -> impl Iterator<Item = &str> {
        self.ends.iter().enumerate().map(|(i, &end)| &self.text[if i == 0 { 0 } else { self.ends[i - 1] }..end])
    }
}

/// Goes through a text row by row. By itself, as the `csv` crate takes a quote behind a blank for a part of the cell, knows
/// no delimiter of several characters, and counts no line that ends in `\r\n` as other editors do.
#[derive(Clone, Copy)]
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    dialect: Dialect,
    /// The line of a quote that never ends.
    open: Option<u32>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, dialect: Dialect) -> Self {
        Self { text, at: 0, line: 1, dialect, open: None }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn is_blank(&self, byte: u8) -> bool {
        byte == b' ' || (byte == b'\t' && self.dialect.delimiter != Delimiter::Byte(b'\t'))
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| self.is_blank(byte)) {
            self.at += 1;
        }
    }

    /// Passes the end of a line, if one is here.
    fn ends_line(&mut self) -> bool {
        match self.peek() {
            Some(b'\r') => self.at += 1 + usize::from(self.text.as_bytes().get(self.at + 1) == Some(&b'\n')),
            Some(b'\n') => self.at += 1,
            _ => return false,
        }
        self.line += 1;
        true
    }

    /// The next row that is not empty, if there is one.
    fn next(&mut self, record: &mut Record) -> bool {
        record.text.clear();
        record.ends.clear();
        (record.quoted, record.odd) = (0, 0);
        loop {
            let start = self.at;
            self.skip_blanks();
            if self.ends_line() {
                continue;
            }
            if self.dialect.delimiter != Delimiter::Blanks {
                self.at = start;
            }
            break;
        }
        record.line = self.line;
        if self.peek().is_none() {
            return false;
        }
        loop {
            self.cell(record);
            record.ends.push(record.text.len());
            let is_delimiter = match self.dialect.delimiter {
                Delimiter::Byte(delimiter) => self.peek() == Some(delimiter),
                Delimiter::Blanks => {
                    let start = self.at;
                    self.skip_blanks();
                    // None at the end of a line.
                    self.at > start && !matches!(self.peek(), None | Some(b'\r' | b'\n'))
                }
            };
            if is_delimiter {
                self.at += usize::from(self.dialect.delimiter != Delimiter::Blanks);
            } else if self.ends_line() || self.peek().is_none() {
                return true;
            }
        }
    }

    fn cell(&mut self, record: &mut Record) {
        self.skip_blanks();
        let is_quoted = self.peek() == Some(self.dialect.quote);
        if is_quoted {
            record.quoted += 1;
            self.quoted(record);
            if self.dialect.delimiter != Delimiter::Blanks {
                self.skip_blanks();
            }
        }
        let start = self.at;
        while let Some(byte) = self.peek() {
            let ends = match self.dialect.delimiter {
                Delimiter::Byte(delimiter) => byte == delimiter,
                Delimiter::Blanks => byte == b' ' || byte == b'\t',
            };
            if ends || byte == b'\r' || byte == b'\n' {
                break;
            }
            self.at += 1;
        }
        let rest = self.text[start..self.at].trim_end();
        record.odd += usize::from(rest.contains('"') || (is_quoted && !rest.is_empty()));
        record.text.push_str(rest);
    }

    /// What stands between two quotes, of which two together are one.
    fn quoted(&mut self, record: &mut Record) {
        let (quote, begun) = (self.dialect.quote, self.line);
        self.at += 1;
        let mut start = self.at;
        loop {
            match self.peek() {
                None => {
                    self.open.get_or_insert(begun);
                    record.text.push_str(&self.text[start..self.at]);
                    return;
                }
                Some(b'\r' | b'\n') => _ = self.ends_line(),
                Some(byte) if byte == quote => {
                    let is_two = self.text.as_bytes().get(self.at + 1) == Some(&quote);
                    self.at += 1;
                    record.text.push_str(&self.text[start..self.at - usize::from(!is_two)]);
                    if !is_two {
                        return;
                    }
                    self.at += 1;
                    start = self.at;
                }
                Some(_) => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(bytes: &[u8]) -> Result<Vec<Vec<String>>> {
        let cells = read("t.csv", bytes, &ReadOptions::default())?;
        let rows =
            (0..cells.rows()).map(|row| (0..cells.header.len()).map(|at| cells.get(row, at).to_owned()).collect());
        Ok([cells.header.clone()].into_iter().chain(rows).collect())
    }

    #[test]
    fn delimiters_quotes_and_line_ends_of_all_kinds() -> Result<()> {
        let expected = [["a", "b c", "d"], ["1", "x, \"y\"", ""], ["2", "z", "4"]];
        for text in [
            "a,b c,d\n1,\"x, \"\"y\"\"\",\n2,z,4\n",
            "a , \"b c\" ,d\r\n1, \"x, \"\"y\"\"\" ,\r\n\r\n2,z,4",
            "a;b c;d\r1;x, \"y\";\r2;z;4\r",
            "a\tb c\td\n1\t'x, \"y\"'\t\n2\tz\t4\n",
            "a|b c|d\n1|x, \"y\"|\n2|z|4\n",
            "\u{feff}a \"b c\" d\n 1 \"x, \"\"y\"\"\" \"\"\n  2   z\t4  \n",
        ] {
            assert_eq!(cells(text.as_bytes())?, expected, "{text:?}");
        }
        Ok(())
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts_them() -> Result<()> {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a,b", "", "\"1", "2\",3", "4,5"].join(end);
            assert_eq!(read("t.csv", text.as_bytes(), &ReadOptions::default())?.lines, [3, 5]);
        }
        Ok(())
    }

    #[test]
    fn encodings_of_all_kinds() -> Result<()> {
        let text = "größe,b\n1,é\n";
        let expected = [["größe", "b"], ["1", "é"]];
        let wide = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<_>>();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes())?;
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [&[0xff, 0xfe][..], &wide(u16::to_le_bytes)].concat(),
            [&[0xfe, 0xff][..], &wide(u16::to_be_bytes)].concat(),
            encoding_rs::WINDOWS_1252.encode(text).0.into_owned(),
            packed.finish()?,
        ] {
            assert_eq!(cells(&bytes)?, expected, "{bytes:?}");
        }
        assert_eq!(cells(&"a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())?[1], ["1", "2"]);
        Ok(())
    }

    #[test]
    fn what_is_no_table_is_named() {
        for (bytes, part) in [
            (&b"PK\x03\x04abc"[..], "Excel"),
            (b"PAR1", "Parquet"),
            (b"{\"a\": 1}", "JSON"),
            (b"a,b\n\0\x01,2\n", "not a text file"),
            (b"", "empty"),
            (b"a,b\n", "no rows"),
            (b"a,b\n1,\"2\n3,4\n", "begins on line 2"),
            (b"a,b\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n3\n4,5,6\n", "2 of 12 rows"),
        ] {
            let error = cells(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn delimiters_are_told_from_what_is_in_the_cells() -> Result<()> {
        for (text, delimiter) in [
            ("name,size,price\na;b,1,2\nc;d,3,4\ne;f,5,6\n", b','),
            ("name,size,price\na|b,1,2\nc|d,3,4\ne|f,5,6\n", b','),
            ("x;y\n1,5;2,5\n3,5;4,5\n", b';'),
            ("x,y\n\"1;2\",3\n\"4;5\",6\n", b','),
            ("sep=;\nx;y\n1;2\n", b';'),
            ("name,a,b,y\nSample 1,4.9,3.6,39\nSample 2,4.8,3.1,40\n", b','),
            ("product,stars,price\niPhone 12,4.5,799\niPhone 13,4.6,899\n", b','),
            ("quarter,sales\nQ1 2000,45\nQ2 2000,46\n", b','),
            ("full name,x\nBob May,5\nAnn May,6\n", b','),
            ("k,v\nx;1,2\ny;3,4\n", b','),
            ("k,v\n3|4,2\n5|6,4\n", b','),
            ("bp,y\n120 80,5\n130 90,6\n", b','),
            ("\"sep=|\"\r\nx|y\r\n1|2\r\n", b'|'),
        ] {
            let cells = read("t.csv", text.as_bytes(), &ReadOptions::default())?;
            let note = format!("Read as separated by {}", Delimiter::Byte(delimiter));
            assert_eq!(cells.notes.contains(&note), delimiter != b',', "{text}: {:?}", cells.notes);
            assert!(!cells.header[0].contains("sep="), "{:?}", cells.header);
        }
        Ok(())
    }

    #[test]
    fn comments_and_titles_above_the_header_are_left_out() -> Result<()> {
        for text in [
            "# made by a program\n# on a day, of a year\na,b,c\n1,2,3\n4,5,6\n",
            "Prices of houses\n\na,b,c\n1,2,3\n4,5,6\n",
            "Prices of houses,,\na,b,c\n1,2,3\n4,5,6\n",
        ] {
            let cells = read("t.csv", text.as_bytes(), &ReadOptions::default())?;
            assert_eq!((cells.header.join(""), cells.rows()), ("abc".into(), 2), "{text}");
            assert!(cells.notes[0].contains("above the header"), "{:?}", cells.notes);
        }
        assert_eq!(cells(b"Prices\nsize;price\n1;2\n3;4\n")?[0], ["size", "price"]);
        // Rows of which each begins with it, and a row with one number.
        assert_eq!(cells(b"#tag,count\n#a,1\n#b,2\n#c,3\n")?.len(), 4);
        assert_eq!(cells(b"1,,\n2,3,4\n5,6,7\n")?.len(), 3);
        assert_eq!(cells(b"first name,city\nJohn Smith,New York\nAnn Lee,San Jose\n")?[1], ["John Smith", "New York"]);
        // A header that begins with #, and one cell less than rows have.
        assert_eq!(cells(b"#id,b\n1,2\n3,4\n")?[0], ["#id", "b"]);
        assert_eq!(cells(b"a\n\"r1\" 1\n\"r2\" 3\n")?[0], ["column 1", "a"]);
        assert_eq!(cells(b"#chrom,kind\na,x\nb,y\n")?[0], ["#chrom", "kind"]);
        for odd in ["region,price\nnorth,2,20\nsouth,3,40\nnorth,4,50\n", "rooms,price\n1,109,1996\n4,20,2001\n"] {
            let error = cells(odd.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("rows have 3 cells, but the header has 2"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn names_are_made_where_there_are_none() -> Result<()> {
        assert_eq!(cells(b"1,2\n3,4\n")?, [["column 1", "column 2"], ["1", "2"], ["3", "4"]]);
        assert_eq!(cells(b"a,,a\n1,2,3\n")?[0], ["a", "column 2", "a 2"]);
        // As R writes its row names, and a delimiter that ends each row.
        assert_eq!(cells(b"a b\n\"r1\" 1 2\n\"r2\" 3 4\n")?[0], ["column 1", "a", "b"]);
        assert_eq!(cells(b"a;b\n1;2;\n3;4;\n")?, [["a", "b"], ["1", "2"], ["3", "4"]]);
        Ok(())
    }
}
