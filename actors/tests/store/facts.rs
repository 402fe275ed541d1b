//! What the store tells about itself.

use actix::Actor as _;
use futures_util::future::join_all;
use vllm_responses_actors::store::StoreActor;
use vllm_responses_actors::store::facts::StoreFacts;
use vllm_responses_actors::store::messages::{Commit, Fetch, Observe};
use vllm_responses_protocol::ids::{Owner, ResponseId};

use crate::fixture::{Place, record};

pub(crate) async fn what_was_done_is_counted(place: Place) {
    let store = StoreActor::open(&place.settings()).await.unwrap().start();
    let before = store.send(Observe).await.unwrap().unwrap().facts;
    assert_eq!((before.committed, before.group_sizes), (0, [0; 7]));

    let mut new: Vec<_> = (0..20).map(|i| record("alice", &format!("r{i}"))).collect();
    let mut clash = record("alice", "r0");
    clash.response = "{}".into();
    new.push(clash);
    let commits = new.into_iter().map(|new| store.send(Commit(Box::new(new))));
    join_all(commits).await;

    let fetch = Fetch {
        owner: Owner::new("alice"),
        id: ResponseId::new("r1"),
    };
    assert!(store.send(fetch).await.unwrap().unwrap().is_some());

    let facts = store.send(Observe).await.unwrap().unwrap().facts;
    assert!(facts.connections > 0 && facts.connections == facts.idle);
    assert_eq!((facts.committed, facts.failed), (20, 1));
    let groups: u64 = facts.group_sizes.iter().sum();
    assert!((1..=21).contains(&groups), "{facts:?}");
    assert_eq!(facts.commits.counts.iter().sum::<u64>(), groups);
    assert_eq!(facts.read_times.counts.iter().sum::<u64>(), 1);
    assert!(facts.commits.sum_us > 0 && facts.read_times.sum_us > 0);
    let quiet = StoreFacts {
        reads: 1,
        committed: facts.committed,
        failed: facts.failed,
        group_sizes: facts.group_sizes,
        commits: facts.commits,
        read_times: facts.read_times,
        connections: facts.connections,
        idle: facts.idle,
        ..StoreFacts::default()
    };
    assert_eq!(facts, quiet);
}
