//! `cargo xtask sim`: the simulation for as long as a night, optimised, over as many seeds as asked for.

use std::process::Command;

/// The variable of `crates/sim/tests/seeds.rs` that each option sets.
const OPTIONS: [(&str, &str); 3] = [("--seeds", "SIM_SEEDS"), ("--steps", "SIM_STEPS"), ("--first", "SIM_FIRST")];

/// The environment that these arguments stand for.
fn environment(arguments: &[&str]) -> Result<Vec<(&'static str, String)>, String> {
    let mut environment = Vec::new();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a number", pair[0])) };
        let option = OPTIONS.iter().find(|(option, _)| option == name);
        let (_, variable) = option.ok_or_else(|| format!("{name} is not an option of sim"))?;
        let number: u64 = value.parse().map_err(|_| format!("{name} is {value:?}; give a number"))?;
        environment.push((*variable, number.to_string()));
    }
    Ok(environment)
}

/// Runs it; an error says why there was nothing to run, or that a seed failed.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["test", "--release", "--package", "serverflow-sim", "--test", "seeds", "--", "--nocapture"]);
    command.envs(environment(arguments)?);
    let status = command.status().map_err(|error| format!("cargo cannot be started: {error}"))?;
    if status.success() { Ok(()) } else { Err("a seed failed; its number and what led to it stand above".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_variables_and_others_are_named() {
        let set = environment(&["--seeds", "1000", "--steps", "50"]).unwrap();
        assert_eq!(set, [("SIM_SEEDS", "1000".to_owned()), ("SIM_STEPS", "50".to_owned())]);
        for (wrong, said) in
            [(&["--seed", "1"][..], "--seed"), (&["--seeds"], "needs a number"), (&["--steps", "x"], "x")]
        {
            let error = environment(wrong).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
