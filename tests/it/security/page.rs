//! `SECURITY.md` names files and tests that exist.

use std::path::Path;

use super::everything;

#[test]
fn the_page_names_files_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests"].into_iter().flat_map(|folder| everything(&root.join(folder)));
    let sources: String = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (mut tests, mut paths) = (0, 0);
    for name in page.split('`').skip(1).step_by(2) {
        if name.starts_with("src/") || name.starts_with("ops/") {
            assert!(root.join(name).exists(), "`{name}` is no file");
            paths += 1;
        } else if name.matches('_').count() > 2 && !name.contains(['/', '.', ' ']) {
            assert!(sources.contains(&format!("fn {name}(")), "`{name}` is no test");
            tests += 1;
        }
    }
    assert!(tests > 20 && paths > 6, "the page was not read: {tests} tests, {paths} files");
}
