//! The source and the sink of one worker.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use timely::scheduling::SyncActivator;

use super::ending::Ending;
use super::measures::Measures;
use crate::kafka::out::sink::Sink;
use crate::kafka::source::KafkaSource;

/// A worker's source and sink. The graph reads from the one and writes to the other, and between the graph's steps the
/// worker looks after both: nobody keeps either for longer than a call. Clones share them.
#[derive(Clone)]
pub struct WorkerEnds {
    source: Rc<RefCell<KafkaSource>>,
    sink: Rc<RefCell<Box<dyn Sink + Send>>>,
    /// The source will not be polled again.
    has_read_all: Rc<Cell<bool>>,
}

impl WorkerEnds {
    pub fn new(source: KafkaSource, sink: Box<dyn Sink + Send>) -> WorkerEnds {
        WorkerEnds {
            source: Rc::new(RefCell::new(source)),
            sink: Rc::new(RefCell::new(sink)),
            has_read_all: Rc::default(),
        }
    }

    pub fn source(&self) -> RefMut<'_, KafkaSource> {
        self.source.borrow_mut()
    }

    pub fn sink(&self) -> RefMut<'_, dyn Sink + Send> {
        RefMut::map(self.sink.borrow_mut(), |sink| &mut **sink)
    }

    /// Has the worker woken when there may be something to read or to send.
    pub fn wake(&self, activator: SyncActivator) {
        let activator = Arc::new(activator);
        self.sink().wake(activator.clone());
        self.source().wake(activator);
    }

    /// Has the sink send what its client takes, and notes what has come of it. A failure ends the job.
    pub fn poll_sink(&self, measures: &Measures, ending: &Ending) {
        if let Err(error) = self.sink().poll(&mut |accepted| measures.note_latency(&accepted)) {
            ending.halt.fail(error);
        }
    }

    /// Notes that the source will not be polled again.
    pub fn note_read_all(&self) {
        self.has_read_all.set(true);
    }

    /// Whether the source will not be polled again.
    pub fn has_read_all(&self) -> bool {
        self.has_read_all.get()
    }
}
