//! What a cell says.

/// Whether a cell says that there is no value: pandas' words, and what statistics programs write.
pub(super) fn is_missing(text: &str) -> bool {
    const WORDS: [&str; 14] =
        ["na", "n/a", "#n/a", "#na", "<na>", "n.a.", "nan", "-nan", "null", "?", "-", "--", ".", "#null!"];
    // Python's; in small letters it is a word like any other.
    text.is_empty() || text == "None" || (text.len() < 7 && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)))
}

/// Whether a cell is true or false, in any spelling.
pub(super) fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

/// The units that a number may have.
const UNITS: &str = "$€£¥%";

/// What may stand beside a number.
fn is_beside(c: char) -> bool {
    c.is_whitespace() || UNITS.contains(c)
}

/// The currency or the % beside a number, if there is one.
pub(super) fn unit(text: &str) -> Option<String> {
    let unit = || text.chars().filter(|c| UNITS.contains(*c)).collect::<String>();
    // Of most cells the bytes say that there is none.
    text.bytes().any(|byte| !byte.is_ascii() || b"$%".contains(&byte)).then(unit).filter(|unit| !unit.is_empty())
}

/// The finite number that a cell says, with a currency, `%` or separated thousands around it if need be. `comma` says whether
/// the decimal mark is a comma.
pub(super) fn number(text: &str, comma: bool) -> Option<f64> {
    let plain = |text: &str| text.parse::<f64>().ok().filter(|number| (*number as f32).is_finite());
    // What the standard library takes for numbers and is a word.
    let is_word = |text: &str| text.bytes().any(|byte| byte.is_ascii_alphabetic() && !byte.eq_ignore_ascii_case(&b'e'));
    if let Some(number) = plain(text).filter(|_| !comma || !text.contains('.')) {
        return (!is_word(text)).then_some(number);
    }
    let (sign, digits) = match text.trim_matches(is_beside).strip_prefix(['-', '\u{2212}']) {
        Some(digits) => (-1.0, digits.trim_start_matches(is_beside)),
        None => (1.0, text.trim_matches(is_beside)),
    };
    let (point, thousands) = if comma { (',', '.') } else { ('.', ',') };
    let (whole, decimals) = digits.split_once(point).unwrap_or((digits, ""));
    let is_separator = |c: char| c == thousands || c == '\'' || (c.is_whitespace() && c != '\n');
    let mut parts = whole.split(is_separator);
    let first = parts.next()?;
    let mut joined = first.to_owned();
    for part in parts {
        if part.len() != 3 || first.is_empty() || first.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        joined += part;
    }
    joined.push('.');
    joined += decimals;
    if is_word(&joined) || joined.starts_with(['-', '+']) { None } else { plain(&joined).map(|number| sign * number) }
}

/// The mark before the decimals of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimal {
    /// `1,234.50`
    Point,
    /// `1.234,50`
    Comma,
}

/// What a cell says about the decimal mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It is no number, or has neither mark.
    Nothing,
    /// It can only be read with this mark.
    Only(Decimal),
    /// `1.234` or `1,234`: a thousand or a bit more than one.
    Either,
}

/// What a cell says about the decimal mark of its column.
pub(super) fn evidence(text: &str) -> Evidence {
    if !text.bytes().any(|byte| byte == b'.' || byte == b',') {
        return Evidence::Nothing;
    }
    let digits = text.trim_matches(|c| is_beside(c) || "+-\u{2212}".contains(c));
    let is_mark = |c: char| c == '.' || c == ',';
    let is_group_separator = |c: char| c == '\'' || (c.is_whitespace() && c != '\n');
    if !digits.contains(is_mark) || !digits.chars().all(|c| c.is_ascii_digit() || is_mark(c) || is_group_separator(c)) {
        return Evidence::Nothing;
    }
    let decimal = |mark| if mark == ',' { Decimal::Comma } else { Decimal::Point };
    let other = |mark| if mark == ',' { Decimal::Point } else { Decimal::Comma };
    let Some((whole, decimals)) = digits.rsplit_once(is_mark) else { return Evidence::Nothing };
    let mark = if digits[whole.len()..].starts_with(',') { ',' } else { '.' };
    let is_grouped = whole.contains(is_mark);
    match is_grouped {
        // The same mark twice separates thousands, if anything.
        true if whole.contains(mark) => {
            match !digits.starts_with('0') && digits.split(mark).skip(1).all(|group| group.len() == 3) {
                true => Evidence::Only(other(mark)),
                false => Evidence::Nothing,
            }
        }
        true => Evidence::Only(decimal(mark)),
        false if decimals.len() == 3 && (1..=3).contains(&whole.len()) && whole != "0" => Evidence::Either,
        false => Evidence::Only(decimal(mark)),
    }
}

/// Whether a cell says a day, or a day and a time of it.
pub(super) fn is_date(text: &str) -> bool {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let is_separator = |c: char| "-/.:, T+Z".contains(c);
    let parts = text.split(is_separator).filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let is_month = |part: &str| {
        let start = part.get(..3).unwrap_or_default().to_ascii_lowercase();
        part.bytes().all(|byte| byte.is_ascii_alphabetic()) && MONTHS.contains(&start.as_str())
    };
    let numbers = parts.iter().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit())).count();
    let months = parts.iter().filter(|part| is_month(part)).count();
    let rest = parts.len() - numbers - months;
    let is_time = text.contains(':');
    // A telephone's number, say, has longer ones.
    let is_short = parts.iter().take(3).all(|part| part.len() <= 9);
    (2..=8).contains(&parts.len()) && is_short && months <= 1 && rest == 0 && (months == 1 || is_time || numbers >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        for (text, expected) in [
            ("1", 1.0),
            ("-2.5e3", -2500.0),
            ("23,288", 23288.0),
            ("$1,234.50", 1234.5),
            ("-$5", -5.0),
            ("12%", 12.0),
            ("7 \u{20ac}", 7.0),
            ("1'000'000", 1e6),
            ("1\u{a0}234", 1234.0),
            ("\u{2212}3", -3.0),
            (".5", 0.5),
        ] {
            assert_eq!(number(text, false), Some(expected), "{text}");
        }
        for (text, expected) in [("1,5", 1.5), ("1.234,5", 1234.5), ("-0,25", -0.25), ("3", 3.0)] {
            assert_eq!(number(text, true), Some(expected), "{text}");
        }
        assert_eq!(number("1.234,50 €", true), Some(1234.5));
        assert_eq!((number("12,5 %", true), number("1.234.567", true)), (Some(12.5), Some(1_234_567.0)));
        assert_eq!((number("1 234,5", true), number("1.5e1", true)), (Some(1234.5), None));
        for text in ["", "a", "1,23", "1,2345", "inf", "nan", "12-3", "1e400", "1 2", "0x1", "e", "--1", "%", "1,234,5"]
        {
            assert_eq!(number(text, false), None, "{text}");
        }
    }

    #[test]
    fn what_is_missing() {
        assert!(
            ["", "NA", "n/a", "?", "NaN", "null", "NULL", "-", "<NA>", "None", "."].iter().all(|text| is_missing(text))
        );
        assert!(["0", "none", "no", "nab", "na na"].iter().all(|text| !is_missing(text)));
    }

    #[test]
    fn decimal_marks() {
        use Evidence::{Either, Nothing, Only};
        for (texts, expected) in [
            (
                &["1,5", "-12,25", "0,123", "1.234,5", "1.234,50 €", "12,5 %", "1 234,50", "1.234.567", "1234,567"][..],
                Only(Decimal::Comma),
            ),
            (&["1.5", "0.123", "1,234.5", "$1,234.50", "1,234,567", "-.5", "1234.567"], Only(Decimal::Point)),
            (&["1,234", "12.345", "€ 123,456"], Either),
            (&["a,5", "1", ",5x", "31.12.2024", "1.2.3", "12:30", "v1.2", "030.123.456"], Nothing),
        ] {
            for text in texts {
                assert_eq!(evidence(text), expected, "{text}");
            }
        }
    }

    #[test]
    fn dates() {
        for text in [
            "2024-01-31",
            "1/2/99",
            "31.12.2024",
            "2024-01-31 12:30:00",
            "2024-01-31T12:30:00Z",
            "Jan 1 1970",
            "1 January 2000",
            "12:30",
        ] {
            assert!(is_date(text), "{text}");
        }
        assert!(["1.5", "may be", "a-b-c", "north", "1-2", "v1.2", ""].iter().all(|text| !is_date(text)));
    }
}
