//! `keyfold simulate`: what a system will ask of its key service, hold in memory and survive. Opens no keyring and asks nobody.

use crate::args::{Simulate as Args, SimulateFormat};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::output::{Output, Target};
use crate::outputs;
use crate::progress;
use crate::transform::Input;
use keyfold::{Error, ErrorKind};
use keyfold_simulate::{Prediction, Scenario, simulate_watched};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Writes the prediction.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = (args.output != "-").then(|| Path::new(&args.output));
    outputs::refuse(&[("--output", target)], None, &[&args.scenario], None)?;
    let mut output = Output::create(Target::from_argument(&args.output), args.force)?;
    let name = match args.scenario == "-" {
        true => "standard input".to_owned(),
        false => Path::new(&args.scenario).display().to_string(),
    };
    let mut text = String::new();
    let read = Input::open(&args.scenario)?.read_to_string(&mut text);
    read.map_err(|error| Failure::new(Exit::Storage, format!("cannot read {name}: {error}")))?;
    let mut scenario = Scenario::parse(&text, &name)?;
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let predicted = predict(&scenario, &interrupt);
    interrupt.check()?;
    let prediction = predicted?;
    let format = if args.json { SimulateFormat::Json } else { args.format };
    let text = match format {
        SimulateFormat::Text => prediction.to_text(),
        SimulateFormat::Json => format!("{:#}\n", prediction.to_json()),
        SimulateFormat::Html => prediction.to_html(),
    };
    output.write(text.as_bytes())?;
    Ok(output.commit()?)
}

/// Simulates, and shows how far it has come.
fn predict(scenario: &Scenario, interrupt: &Interrupt) -> keyfold::Result<Prediction> {
    let bar = progress::bar(Some(scenario.run.time.as_secs()), "simulating {bar:15} {percent}%, {eta} left");
    let predicted = simulate_watched(scenario, |passed: Duration| {
        bar.set_position(passed.as_secs());
        interrupt.check().map_err(|_| Error::new(ErrorKind::Closed, "interrupted"))
    });
    bar.finish_and_clear();
    predicted
}
