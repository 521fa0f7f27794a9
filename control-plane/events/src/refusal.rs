//! What an error of the client says, for a log or an event.

/// The error in one line. `kube::Error` shows a refusal of the server with all of its fields
/// as Rust prints them; people get the server's message.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the server refused to make an object because its namespace is being deleted: there
/// is nothing left to do for it.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use kube::core::response::{StatusCause, StatusDetails};

    fn refused(cause: &str) -> kube::Error {
        let mut status = Status::failure("services \"s\" is forbidden: no", "Forbidden");
        status.code = 403;
        status.details = Some(StatusDetails {
            causes: vec![StatusCause {
                reason: cause.into(),
                message: String::new(),
                field: String::new(),
            }],
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            retry_after_seconds: 0,
        });
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        assert_eq!(text(&refused("x")), "services \"s\" is forbidden: no");
    }

    #[test]
    fn a_namespace_that_ends_is_known_by_its_cause() {
        assert!(is_namespace_terminating(&refused("NamespaceTerminating")));
        assert!(!is_namespace_terminating(&refused("Quota")));
        assert!(!is_namespace_terminating(
            &kube::Error::LinesCodecMaxLineLengthExceeded
        ));
    }
}
