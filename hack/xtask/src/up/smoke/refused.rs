//! Step d, fifth part: what the API refuses, with its usual `Status` and text.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::tour::{Tour, expect};
use super::{Step, step};
use crate::process;

pub const STEPS: &[Step] = &[
    step("a bad manifest: unknown field", unknown_field),
    step("a bad manifest: wrong type", wrong_type),
    step("a bad manifest: invalid name", invalid_name),
    step("a bad manifest: stale resourceVersion", stale),
    step("an object that is not there: NotFound", not_found),
    step(
        "an object that is there already: AlreadyExists",
        already_exists,
    ),
    step("a kind that is not served: 404", not_served),
    step("a pod's token without a right: 403 and its text", forbidden),
    step("a pod's token on self-review: allowed", self_review),
];

const SECRETS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn unknown_field(tour: &mut Tour) -> Result<()> {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndatum: {a: b}\n";
    let text = tour.refused(&["apply", "-f", "-"], manifest)?;
    expect(&text, "BadRequest")?;
    expect(&text, "strict decoding error: unknown field \"datum\"")
}

fn wrong_type(tour: &mut Tour) -> Result<()> {
    let manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  \
                    replicas: many\n  selector: {matchLabels: {a: b}}\n  template:\n    \
                    metadata: {labels: {a: b}}\n    spec: {containers: [{name: a, image: b}]}\n";
    let text = tour.refused(&["create", "--validate=false", "-f", "-"], manifest)?;
    expect(&text, "cannot unmarshal string into Go struct field")?;
    expect(&text, "replicas")
}

fn invalid_name(tour: &mut Tour) -> Result<()> {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n";
    let text = tour.refused(&["create", "-f", "-"], manifest)?;
    expect(
        &text,
        "The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value",
    )?;
    expect(&text, "a lowercase RFC 1123 subdomain")
}

fn stale(tour: &mut Tour) -> Result<()> {
    tour.run(&["create", "configmap", "stale", "--from-literal=a=1"])?;
    let mut old = tour.get(&["configmap", "stale"])?;
    tour.run(&[
        "patch",
        "configmap",
        "stale",
        "-p",
        "{\"data\":{\"a\":\"2\"}}",
    ])?;
    old["data"]["a"] = json!("3");
    let text = tour.refused(&["replace", "-f", "-"], &old.to_string())?;
    tour.run(&["delete", "configmap", "stale"])?;
    expect(
        &text,
        "Operation cannot be fulfilled on configmaps \"stale\"",
    )?;
    expect(
        &text,
        "the object has been modified; please apply your changes to the latest version",
    )
}

fn not_found(tour: &mut Tour) -> Result<()> {
    let text = tour.refused(&["get", "pod", "nobody"], "")?;
    expect(
        &text,
        "Error from server (NotFound): pods \"nobody\" not found",
    )
}

fn already_exists(tour: &mut Tour) -> Result<()> {
    let again = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n";
    let text = tour.refused(&["create", "-f", "-"], again)?;
    expect(&text, "configmaps \"web\" already exists")?;
    expect(&text, "Error from server (AlreadyExists)")
}

fn not_served(tour: &mut Tour) -> Result<()> {
    let text = tour.refused(
        &["get", "--raw", "/apis/batch/v1/namespaces/default/jobs"],
        "",
    )?;
    expect(&text, "could not find the requested resource")
}

fn forbidden(tour: &mut Tour) -> Result<()> {
    let path = "/api/v1/namespaces/default/secrets";
    let (code, body) = ask(tour, &format!("https://kubernetes.default.svc{path}"))?;
    ensure!(
        code == 403 && body["reason"] == "Forbidden",
        "{code} {body}"
    );
    let message = body["message"].as_str().unwrap_or_default();
    expect(
        message,
        "User \"system:serviceaccount:default:default\" cannot list resource",
    )?;
    expect(
        message,
        "\"secrets\" in API group \"\" in the namespace \"default\"",
    )
}

fn self_review(tour: &mut Tour) -> Result<()> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {},
    });
    let url = "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, body) = ask(
        tour,
        &format!("-H 'Content-Type: application/json' -d '{review}' {url}"),
    )?;
    ensure!(code == 200 || code == 201, "{code} {body}");
    let user = &body["status"]["userInfo"]["username"];
    ensure!(user == "system:serviceaccount:default:default", "{body}");
    Ok(())
}

/// Asks the API from a pod with the pod's token: HTTP code and body.
fn ask(tour: &Tour, what: &str) -> Result<(u16, Value)> {
    let pod = tour.pod("app=web")?;
    let script = format!(
        "curl -sS -m 20 --cacert {SECRETS}/ca.crt -w '\\n%{{http_code}}' \
         -H \"Authorization: Bearer $(cat {SECRETS}/token)\" {what}"
    );
    let mut command = tour.command(&["exec", &pod, "--", "sh", "-c", &script]);
    let text = process::output(command.stdin(Stdio::null()))?;
    let (body, code) = text.trim_end().rsplit_once('\n').context("no answer")?;
    Ok((
        code.parse()?,
        serde_json::from_str(body).unwrap_or_default(),
    ))
}
