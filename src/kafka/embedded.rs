//! A broker inside the process, for the demo and for tests: librdkafka's mock cluster, with real bytes over the
//! real protocol on a port of loopback.
//!
//! It keeps 5 MiB a partition and stores no transactional offsets, so it proves nothing about a real Kafka.

use anyhow::{Context, Result};
use rdkafka::mocking::MockCluster;

/// A running broker; it ends when this is dropped.
pub struct Embedded {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

impl Embedded {
    /// Starts a broker with these topics and partitions.
    ///
    /// # Errors
    /// When it can't be started or a topic can't be made.
    pub fn start<'a>(topics: impl Iterator<Item = (&'a str, i32)>) -> Result<Embedded> {
        let cluster = MockCluster::new(1).context("could not start the embedded broker")?;
        for (topic, partitions) in topics {
            cluster
                .create_topic(topic, partitions, 1)
                .with_context(|| format!("could not make the topic {topic:?} in the embedded broker"))?;
        }
        Ok(Embedded { cluster })
    }

    /// Its address, `host:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The cluster itself: tests have it fail.
    pub fn cluster(&self) -> &MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
        &self.cluster
    }
}
