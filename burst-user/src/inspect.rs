//! Looking changes nothing: a second instance of the real program, with maps of its own, that packets are put to.
//!
//! Its maps are either copies of what is pinned, with the policy of the program that runs, or made from a configuration; [`open`]
//! decides which. What became of a packet comes from the program; [`explain`] says why, from the same tables and by the
//! same code, and holds the one against the other. Nothing pinned is written, nothing is sent, nothing stays behind.

mod explain;
mod fields;
mod made;
mod open;
mod packet;
mod placed;
mod rules;
mod scratch;
mod specimen;
mod tables;
mod tally;

pub use explain::{Explained, action_text, explain};
pub use fields::{Change, Headers, changes, headers};
pub use open::{Request, open};
pub use packet::{Proto, Question};
pub use specimen::{Answer, InspectError, Source, Specimen};
pub use tables::{Direction, Tables};
pub use tally::{Broken, ClassTally, Place, Sum, Tally};
