//! Names of folders made from titles and ids.

/// Candidates for a job's folder name, tried in order.
#[must_use]
pub fn folder_names(_title: &str, id: &str) -> [String; 3] {
    let safe: String = id.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    [format!("job-{safe}"), format!("job-{safe}-2"), format!("job-{safe}-3")]
}

/// The folder name of a job under `.stallproof/jobs/`.
#[must_use]
pub fn job_key(id: &str) -> String {
    id.to_owned()
}
