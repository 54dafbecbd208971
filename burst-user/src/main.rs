//! The burst binary.

fn main() -> std::process::ExitCode {
    burst::cli::main()
}
