//! What is said of a configuration that is no TOML: where and what, without the text that stands there.
//!
//! The message ends up in logs and reports, and an address, as that of a webhook, may carry a token. Pure.

/// Lines: `TOML parse error at line 2, column 3`, and what is wrong.
pub(super) fn told(err: &toml::de::Error, text: &str) -> String {
    let what = without_addresses(err.message().trim_end());
    let Some(before) = err.span().and_then(|span| text.get(..span.start)) else { return what };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!("TOML parse error at line {line}, column {column}\n{what}")
}

/// The text with every quoted address cut behind its `://`.
fn without_addresses(text: &str) -> String {
    let (mut safe, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("://") {
        safe.push_str(before);
        safe.push_str("://…");
        rest = &behind[behind.find(['"', '`']).unwrap_or(behind.len())..];
    }
    safe + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::RawConfig;

    fn of(text: &str) -> String {
        told(&toml::from_str::<RawConfig>(text).err().unwrap(), text)
    }

    #[test]
    fn place_and_cause_are_told_and_no_address_is() {
        assert!(
            of("[worker]\nslotz = 1\n")
                .starts_with("TOML parse error at line 2, column 1\nunknown field `slotz`")
        );
        assert!(of("[worker]\nslots = \"two\"\n").contains("\"two\""), "what is no address helps");
        for text in [
            "[monitor.webhook]\nurl = \"https://example.org/canary\" x\n",
            "[monitor]\nwebhook = \"https://example.org/canary\"\n",
            "[monitor.webhook]\nurl = [\"https://a:canary@example.org\", \"https://example.org/canary\"]\n",
            "[monitor.webhook]\nurl = \"https://example.org/canary\n",
        ] {
            let said = of(text);
            assert!(said.contains("line 2") && !said.contains("canary"), "{said}");
        }
    }
}
