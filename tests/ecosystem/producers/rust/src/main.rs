//! Producer of the metrics that a JSON file describes, with OpenTelemetry's SDK for Rust.
//!
//! It records each series of the file, exports, records each series again, and exports at its end.
//! The SDK reads the standard variables, which also select the exporter.

use std::collections::BTreeMap;
use std::error::Error;
use std::{env, fs};

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_resource_detectors::{
    HostResourceDetector, OsResourceDetector, ProcessResourceDetector,
    ServiceInstanceIdResourceDetector,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream,
};
use serde::Deserialize;

/// One metric of the file.
#[derive(Deserialize)]
struct Described {
    name: String,
    instrument: String,
    unit: String,
    description: String,
    boundaries: Vec<f64>,
    series: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    attributes: BTreeMap<String, serde_json::Value>,
    value: String,
}

/// Recorder of a value with attributes.
type Record = Box<dyn Fn(f64, &[KeyValue])>;

fn new_instrument(meter: &Meter, described: &Described) -> Result<Record, Box<dyn Error>> {
    let (name, unit) = (described.name.clone(), described.unit.clone());
    let description = described.description.clone();
    Ok(match described.instrument.as_str() {
        "counter" => {
            let builder = meter.u64_counter(name).with_unit(unit);
            let counter = builder.with_description(description).build();
            Box::new(move |value, attributes| counter.add(value as u64, attributes))
        }
        "updowncounter" => {
            let builder = meter.i64_up_down_counter(name).with_unit(unit);
            let counter = builder.with_description(description).build();
            Box::new(move |value, attributes| counter.add(value as i64, attributes))
        }
        "histogram" => {
            let mut builder = meter.f64_histogram(name).with_unit(unit);
            if !described.boundaries.is_empty() {
                builder = builder.with_boundaries(described.boundaries.clone());
            }
            let histogram = builder.with_description(description).build();
            Box::new(move |value, attributes| histogram.record(value, attributes))
        }
        "gauge" => {
            let builder = meter.f64_gauge(name).with_unit(unit);
            let gauge = builder.with_description(description).build();
            Box::new(move |value, attributes| gauge.record(value, attributes))
        }
        unknown => return Err(format!("the instrument {unknown} is unknown").into()),
    })
}

fn attributes_of(series: &Series) -> Vec<KeyValue> {
    let value_of = |value: &serde_json::Value| match value {
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => Value::from(number.as_i64().unwrap_or_default()),
        serde_json::Value::String(text) => Value::from(text.clone()),
        _ => Value::from(""), // null
    };
    let pairs = series.attributes.iter();
    pairs
        .map(|(name, value)| KeyValue::new(name.clone(), value_of(value)))
        .collect()
}

fn new_provider() -> Result<SdkMeterProvider, Box<dyn Error>> {
    let resource = Resource::builder()
        .with_detectors(&[
            Box::new(HostResourceDetector::default()),
            Box::new(OsResourceDetector),
            Box::new(ProcessResourceDetector),
            Box::new(ServiceInstanceIdResourceDetector),
        ])
        .build();
    let builder = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_periodic_exporter(MetricExporter::builder().build()?);
    // The exporter does not read this variable.
    let aggregation = env::var("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION");
    if aggregation.is_ok_and(|name| name == "base2_exponential_bucket_histogram") {
        let view = |instrument: &Instrument| {
            let exponential = Aggregation::Base2ExponentialHistogram {
                max_size: 160,
                max_scale: 20,
                record_min_max: true,
            };
            let stream = Stream::builder().with_aggregation(exponential);
            (instrument.kind() == InstrumentKind::Histogram).then(|| stream.build().ok())?
        };
        return Ok(builder.with_view(view).build());
    }
    Ok(builder.build())
}

fn record_all(metrics: &[Described], instruments: &[Record]) -> Result<(), Box<dyn Error>> {
    for (described, record) in metrics.iter().zip(instruments) {
        for series in &described.series {
            record(series.value.parse()?, &attributes_of(series));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: producer-rust FILE")?;
    let metrics: Vec<Described> = serde_json::from_str(&fs::read_to_string(path)?)?;
    // The gRPC exporter needs a runtime of Tokio.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let provider = new_provider()?;
    let meter = provider.meter("messaging");
    let instruments = metrics
        .iter()
        .map(|described| new_instrument(&meter, described))
        .collect::<Result<Vec<_>, _>>()?;
    record_all(&metrics, &instruments)?;
    provider.force_flush()?;
    record_all(&metrics, &instruments)?;
    provider.shutdown()?;
    Ok(())
}
