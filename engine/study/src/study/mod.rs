//! `inhouse study`: from problem sets, models and an index to the tables and figures of arXiv 2210.17236, on any library.
//!
//! A [`Config`] names all that bears on the results. [`run`] does the work in units that a [`Store`] keeps, by any number of
//! workers, killed and begun again as it may be; [`Results`] reads them, and out of these come [`table`]s, [`figure`]s and
//! the [`report`] that shows both, with every problem ([`ByProblem`]). [`Comparison`] holds two of them against each other.

mod by_problem;
pub mod choose;
mod compare;
mod config;
mod environment;
pub mod figure;
mod recalled;
pub mod report;
mod results;
mod run;
mod sets;
mod store;
pub mod table;
mod tally;
mod units;

pub use by_problem::{ByProblem, Column, ProblemCell, ProblemRow, ShownCompletion};
pub use compare::{Compared, Comparison, Shown, Side};
pub use config::{Config, EqualSamples, ModelConfig, ProblemSet, Protocol, setting_title};
pub use recalled::{Chosen, Found, Recalled};
pub use results::{Estimate, Results, Sweep};
pub use run::{Phase, RunOptions, RunReport, run};
pub use sets::SetRecord;
pub use store::{Record, Store};
pub use tally::{Tally, Uses};
pub use units::{Cell, Shard, Unit};
