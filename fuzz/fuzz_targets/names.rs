//! Names on disk: whatever title and id are, one plain component; different ids never share a job's key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::slug::{folder_names, job_key, slug};

fn assert_contained(name: &str) {
    assert!((1..=255).contains(&name.len()) && !name.starts_with(['.', '-']), "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-~".contains(&byte)), "{name}");
    let path = std::path::Path::new("/a").join(name);
    assert_eq!(path.parent(), Some(std::path::Path::new("/a")), "{name}");
}

fuzz_target!(|texts: (&str, &str, &str)| {
    let (title, id, other) = texts;
    let slug = slug(title);
    assert!(slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
    for name in folder_names(title, id).iter().chain([&slug, &job_key(id)]) {
        assert_contained(name);
    }
    if id != other {
        assert_ne!(job_key(id), job_key(other));
        assert_ne!(folder_names(title, id)[2], folder_names(title, other)[2]);
    }
});
