//! What a cell says.

/// Whether a cell says that there is no value.
pub(super) fn is_missing(text: &str) -> bool {
    const WORDS: [&str; 8] = ["na", "n/a", "#n/a", "nan", "null", "?", "-", "--"];
    text.is_empty() || (text.len() < 5 && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)))
}

/// The finite number that a cell says, with a currency, `%` or separated thousands around it if need be. `comma` says whether
/// a comma stands before the decimals.
pub(super) fn number(text: &str, comma: bool) -> Option<f64> {
    let plain = |text: &str| text.parse::<f64>().ok().filter(|number| (*number as f32).is_finite());
    // What the standard library takes for numbers and is a word.
    let is_word = |text: &str| text.bytes().any(|byte| byte.is_ascii_alphabetic() && !byte.eq_ignore_ascii_case(&b'e'));
    if let Some(number) = plain(text) {
        return (!is_word(text)).then_some(number);
    }
    let is_beside = |c: char| c.is_whitespace() || "$€£¥%".contains(c);
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
        if part.len() != 3 || first.is_empty() || first.len() > 3 {
            return None;
        }
        joined += part;
    }
    joined.push('.');
    joined += decimals;
    if is_word(&joined) || joined.starts_with(['-', '+']) { None } else { plain(&joined).map(|number| sign * number) }
}

/// Whether a cell, which says no number in another way, has a comma that can only stand before decimals.
pub(super) fn has_decimal_comma(text: &str) -> bool {
    let Some((whole, decimals)) = text.trim_start_matches(['-', '+']).rsplit_once(',') else { return false };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(decimals) && whole.split('.').all(is_digits) && (decimals.len() != 3 || whole == "0")
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
        for text in ["", "a", "1,23", "1,2345", "inf", "nan", "12-3", "1e400", "1 2", "0x1", "e", "--1", "%", "1,234,5"]
        {
            assert_eq!(number(text, false), None, "{text}");
        }
    }

    #[test]
    fn what_is_missing() {
        assert!(["", "NA", "n/a", "?", "NaN", "null", "NULL", "-"].iter().all(|text| is_missing(text)));
        assert!(["0", "none", "no", "nab", "na na"].iter().all(|text| !is_missing(text)));
    }

    #[test]
    fn commas_before_decimals() {
        assert!(["1,5", "-12,25", "0,123", "1.234,5"].iter().all(|text| has_decimal_comma(text)));
        assert!(["1,234", "1,234,567", "a,5", "1", ",5x"].iter().all(|text| !has_decimal_comma(text)));
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
