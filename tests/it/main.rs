//! Black-box tests, one module per topic.

mod cli;
