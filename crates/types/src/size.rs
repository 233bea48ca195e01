//! Amounts and places of bytes, and how people write them.

use alloc::string::{String, ToString};
use core::fmt;

/// A place on a disk, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteOffset(pub u64);

impl fmt::Debug for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// An amount of bytes. Parsed as people write it: `K KB M MB G GB T TB P PB` are decimal, `Ki KiB …` binary, a bare number bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SizeError {
    text: String,
    why: &'static str,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a size: {}; write for example 10GiB, 500MB or 1073741824", self.text, self.why)
    }
}

impl core::error::Error for SizeError {}

impl core::str::FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<ByteSize, SizeError> {
        let refuse = |why| SizeError { text: text.to_string(), why };
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let scale = match unit {
            "" | "B" => 1,
            "K" | "KB" => 1_000,
            "M" | "MB" => 1_000_000,
            "G" | "GB" => 1_000_000_000,
            "T" | "TB" => 1_000_000_000_000,
            "P" | "PB" => 1_000_000_000_000_000,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            "Pi" | "PiB" => 1_u64 << 50,
            _ => return Err(refuse("its unit is unknown")),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
            return Err(refuse("it needs a number"));
        }
        if fraction.len() > 9 {
            return Err(refuse("it has more than nine decimals"));
        }
        let whole: u64 = whole.parse().map_err(|_| refuse("it is too large"))?;
        let part = if fraction.is_empty() {
            0
        } else {
            fraction.parse::<u64>().map_err(|_| refuse("it needs a number"))?
        };
        let tens = 10_u128.pow(fraction.len() as u32);
        let bytes = u128::from(whole) * u128::from(scale) + u128::from(part) * u128::from(scale) / tens;
        u64::try_from(bytes).map(ByteSize).map_err(|_| refuse("it is too large"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let Some(exponent) = self.0.checked_ilog2().map(|bits| bits / 10).filter(|e| *e > 0) else {
            return write!(f, "{} B", self.0);
        };
        let value = self.0 as f64 / (1_u64 << (10 * exponent)) as f64;
        let unit = units[exponent as usize - 1];
        if value >= 100.0 { write!(f, "{value:.0} {unit}") } else { write!(f, "{value:.1} {unit}") }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ByteSize;
    use alloc::string::ToString;

    #[test]
    fn sizes_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("4K", 4000),
            ("4Ki", 4096),
            ("1.5GiB", 1_610_612_736),
            ("10GB", 10_000_000_000),
            ("2TiB", 2 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_a_hint() {
        for text in [
            "",
            "GiB",
            "10 gigs",
            "10gigs",
            "-1",
            "1..5G",
            "1.G",
            ".5G",
            "99999999999P",
            "0x10",
            "10 GiB",
            "1e3",
        ] {
            let error = text.parse::<ByteSize>().expect_err(text).to_string();
            assert!(error.contains("write for example"), "{error}");
        }
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 << 30, "10.0 GiB"), (200 << 20, "200 MiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
