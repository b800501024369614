//! Handlers of the kind `generate`: a program of the user's answers a prompt, and its answer becomes the project.
//!
//! `prompt` makes the prompt from the entry, the attempt and the errors of earlier ones, `fence` finds the code in the
//! answer, `handler` runs the attempt in a process of its own and hands the code to `materialize`, which writes it, has
//! it judged and publishes it. Never decides whether there is another attempt: that is `retry`'s.

pub(crate) mod fence;
mod handler;
pub(crate) mod prompt;

pub use handler::main;
pub use prompt::{TemplateError, check_template};
