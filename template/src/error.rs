//! The two ways in which a template fails.

/// Result of everything that a template does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a template failed.
#[derive(Debug)]
pub struct Error {
    /// The template wants more than it may, rather than being wrong.
    pub is_budget: bool,
    /// One sentence for people, most often with the line of the template.
    pub message: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
