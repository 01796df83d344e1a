//! Reading the date from a PC's real-time clock (Motorola MC146818 and heirs),
//! which firmware and QEMU keep in UTC unless told otherwise.

/// A date and time of day, valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Year, 1970 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// Reads the clock through `register`. `None` if it shows nonsense or never
    /// twice the same.
    pub fn read(mut register: impl FnMut(u8) -> u8) -> Option<Self> {
        const STATUS_A: u8 = 0x0a;
        const STATUS_B: u8 = 0x0b;
        const UPDATING: u8 = 0x80;
        let mut snapshot = || {
            // An update takes about 2 ms; a clock that updates for ever is broken.
            let steady = (0..1_000_000).any(|_| register(STATUS_A) & UPDATING == 0);
            steady.then(|| [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32].map(&mut register))
        };
        // An update may begin while the registers are read.
        let mut last = snapshot()?;
        let mut same = false;
        for _ in 0..8 {
            let again = snapshot()?;
            same = again == last;
            last = again;
            if same {
                break;
            }
        }
        if !same {
            return None;
        }
        Self::decode(last, register(STATUS_B))
    }

    fn decode(raw: [u8; 7], status: u8) -> Option<Self> {
        let binary = status & 4 != 0;
        let number = |value: u8| match binary {
            true => Some(value),
            false if value & 15 < 10 && value >> 4 < 10 => Some((value >> 4) * 10 + (value & 15)),
            false => None,
        };
        let afternoon = raw[2] & 0x80 != 0;
        let mut hour = number(raw[2] & 0x7f)?;
        if status & 2 == 0 {
            // Twelve-hour clock: 12, 1, ... 11.
            if !(1..=12).contains(&hour) {
                return None;
            }
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        // The century's register is a habit, not a standard.
        let century = match number(raw[6]) {
            Some(century @ 19..=99) => u16::from(century),
            _ => 20,
        };
        let date = Self {
            year: century * 100 + u16::from(number(raw[5])?),
            month: number(raw[4])?,
            day: number(raw[3])?,
            hour,
            minute: number(raw[1])?,
            second: number(raw[0])?,
        };
        let valid = date.year >= 1970
            && (1..=12).contains(&date.month)
            && (1..=31).contains(&date.day)
            && date.hour < 24
            && date.minute < 60
            && date.second < 60;
        valid.then_some(date)
    }

    /// Returns the seconds since 1970-01-01 00:00:00 UTC.
    pub fn unix_seconds(&self) -> u64 {
        // Years are counted from March, so that the leap day comes last; the
        // months from then on have 31, 30, 31, 30, 31 days, and again.
        let (year, month) = match self.month {
            1 | 2 => (u64::from(self.year) - 1, u64::from(self.month) + 9),
            month => (u64::from(self.year), u64::from(month) - 3),
        };
        let leap_days = year / 4 - year / 100 + year / 400;
        let days = year * 365 + leap_days + (153 * month + 2) / 5 + u64::from(self.day) - 1;
        // Days from 0000-03-01 to 1970-01-01.
        let days = days - 719_468;
        ((days * 24 + u64::from(self.hour)) * 60 + u64::from(self.minute)) * 60
            + u64::from(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(values: [u8; 7], status: u8) -> impl FnMut(u8) -> u8 {
        move |register| match register {
            0x00 => values[0],
            0x02 => values[1],
            0x04 => values[2],
            0x07 => values[3],
            0x08 => values[4],
            0x09 => values[5],
            0x32 => values[6],
            0x0b => status,
            _ => 0,
        }
    }

    #[test]
    fn known_dates_have_their_known_seconds() {
        let bcd = |values| DateTime::read(clock(values, 2)).map(|date| date.unix_seconds());
        assert_eq!(bcd([0, 0, 0, 1, 1, 0x70, 0x19]), Some(0));
        assert_eq!(
            bcd([0x40, 0x46, 0x01, 0x09, 0x09, 0x01, 0x20]),
            Some(1_000_000_000)
        );
        assert_eq!(
            bcd([0x59, 0x59, 0x23, 0x29, 0x02, 0x24, 0x20]),
            Some(1_709_251_199)
        );
        assert_eq!(bcd([0, 0, 0, 1, 3, 0x24, 0x20]), Some(1_709_251_200));
    }

    #[test]
    fn binary_and_twelve_hour_clocks_are_understood() {
        let date = DateTime::read(clock([30, 15, 12, 31, 12, 25, 20], 4)).unwrap();
        assert_eq!(
            (date.year, date.month, date.day, date.hour),
            (2025, 12, 31, 0)
        );
        let date = DateTime::read(clock([0x30, 0x15, 0x91, 0x31, 0x12, 0x25, 0x20], 0)).unwrap();
        assert_eq!(date.hour, 23);
    }

    #[test]
    fn a_clock_of_nonsense_or_of_all_ones_is_refused() {
        assert_eq!(DateTime::read(|_| 0xff), None);
        assert_eq!(
            DateTime::read(clock([0x61, 0, 0, 1, 1, 0x20, 0x20], 2)),
            None
        );
        assert_eq!(
            DateTime::read(clock([0x0a, 0, 0, 1, 1, 0x20, 0x20], 2)),
            None
        );
    }
}
