//! Every case of the registry under criterion: `cargo bench --bench ops -- attention_mil`.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use onkos::bench::Place;

fn ops(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ops");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for case in onkos::bench::registry() {
        group.bench_function(case.name(), |b| {
            let mut work = (case.setup)(Place::default());
            b.iter(&mut work);
        });
    }
    group.finish();
}

criterion_group!(benches, ops);
criterion_main!(benches);
