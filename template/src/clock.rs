//! The time that a template may ask for.

/// A moment as clocks on walls show it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Seconds since 1970-01-01 00:00 of the same wall clock.
    seconds: i64,
}

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Clock {
    /// Seconds since 1970-01-01 00:00, as the wall clock counts them: the time zone's offset added.
    /// Years 1 to 9999; what lies beyond is moved to the nearer end.
    pub fn from_seconds(seconds: i64) -> Clock {
        Clock { seconds: seconds.clamp(-62_135_596_800, 253_402_300_799) }
    }

    /// Year, month (1 to 12), day (1 to 31). Howard Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms", `civil_from_days`: years begin in March, so that the leap day is the last one.
    fn date(self) -> (i64, usize, i64) {
        let days = self.seconds.div_euclid(86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (year + era * 400 + i64::from(month <= 2), month as usize, day)
    }

    /// The time in a format of `strftime`; directives that are not known stay as they are.
    pub(super) fn format(self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('-') => {
                    let directive = chars.next().unwrap_or('%');
                    let text = self.directive(directive);
                    let bare = text.trim_start_matches(['0', ' ']);
                    out.push_str(if bare.is_empty() { "0" } else { bare });
                }
                Some(directive) => out.push_str(&self.directive(directive)),
                None => out.push('%'),
            }
        }
        out
    }

    fn directive(self, directive: char) -> String {
        let (year, month, day) = self.date();
        let of_day = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let weekday = (self.seconds.div_euclid(86_400) + 3).rem_euclid(7) as usize;
        let hour_12 = (hour + 11) % 12 + 1;
        match directive {
            'Y' => format!("{year:04}"),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'H' => format!("{hour:02}"),
            'I' => format!("{hour_12:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'p' => if hour < 12 { "AM" } else { "PM" }.into(),
            'A' => DAYS[weekday].into(),
            'a' => DAYS[weekday][..3].into(),
            'B' => MONTHS[month - 1].into(),
            'b' | 'h' => MONTHS[month - 1][..3].into(),
            'j' => {
                let start_of_year = days_before(year);
                format!("{:03}", self.seconds.div_euclid(86_400) - start_of_year + 1)
            }
            'w' => format!("{}", (weekday + 1) % 7),
            'u' => format!("{}", weekday + 1),
            'F' => self.format("%Y-%m-%d"),
            'T' => self.format("%H:%M:%S"),
            'D' => self.format("%m/%d/%y"),
            'R' => self.format("%H:%M"),
            'n' => "\n".into(),
            't' => "\t".into(),
            'Z' | 'z' => String::new(),
            '%' => "%".into(),
            other => format!("%{other}"),
        }
    }
}

/// Days from 1970-01-01 to the first of January of a year.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| Clock::from_seconds(seconds);
        assert_eq!(at(0).format("%Y-%m-%d %H:%M:%S %a %j"), "1970-01-01 00:00:00 Thu 001");
        assert_eq!(at(951_782_400).format("%d %b %Y, day %j"), "29 Feb 2000, day 060");
        assert_eq!(at(1_735_689_599).format("%A %-d %B %y %I:%M %p"), "Tuesday 31 December 24 11:59 PM");
        assert_eq!(at(-1).format("%F %T %%"), "1969-12-31 23:59:59 %");
        assert_eq!(at(i64::MIN).format("%F"), "0001-01-01");
        assert_eq!(at(i64::MAX).format("%F %Q"), "9999-12-31 %Q");
    }
}
