//! Answers queries from the zone or from upstream.

use std::sync::Arc;

use hickory_net::runtime::Time;
use hickory_net::{DnsError, NetError};
use hickory_proto::op::{Metadata, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_resolver::TokioResolver;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::watch;
use tracing::debug;

use crate::zone::{Answer, Zone};

pub(crate) struct Handler {
    pub zone: watch::Receiver<Arc<Zone>>,
    pub upstream: Option<TokioResolver>,
}

/// What goes back: the code and the two sections that we fill.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
}

impl Reply {
    fn refused(code: ResponseCode) -> Reply {
        Reply {
            code,
            authoritative: false,
            answers: Vec::new(),
            authority: Vec::new(),
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = self.upstream.is_some();
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &reply.answers,
            &[],
            &reply.authority,
            &[],
        );
        match handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                debug!(%error, "answer not sent");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata,
                    counts: hickory_proto::op::HeaderCounts::default(),
                })
            }
        }
    }
}

impl Handler {
    async fn reply(&self, request: &Request) -> Reply {
        let [query] = request.queries.queries() else {
            return Reply::refused(ResponseCode::FormErr);
        };
        if request.metadata.op_code != OpCode::Query {
            return Reply::refused(ResponseCode::NotImp);
        }
        let zone = self.zone.borrow().clone();
        let name = query.original().name();
        match zone.lookup(name, query.query_type()) {
            Answer::Records(answers) => Reply {
                code: ResponseCode::NoError,
                authoritative: true,
                answers,
                authority: Vec::new(),
            },
            Answer::NoData => Reply {
                code: ResponseCode::NoError,
                authoritative: true,
                answers: Vec::new(),
                authority: vec![zone.soa()],
            },
            Answer::NoName => Reply {
                code: ResponseCode::NXDomain,
                authoritative: true,
                answers: Vec::new(),
                authority: vec![zone.soa()],
            },
            Answer::Elsewhere => self.forward(name.clone(), query.query_type()).await,
        }
    }

    async fn forward(
        &self,
        name: hickory_proto::rr::Name,
        kind: hickory_proto::rr::RecordType,
    ) -> Reply {
        let Some(upstream) = &self.upstream else {
            return Reply::refused(ResponseCode::Refused);
        };
        match upstream.lookup(name, kind).await {
            Ok(found) => Reply {
                answers: found.answers().to_vec(),
                ..Reply::refused(ResponseCode::NoError)
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Reply {
                authority: none
                    .soa
                    .map(|soa| soa.into_record_of_rdata())
                    .into_iter()
                    .collect(),
                ..Reply::refused(none.response_code)
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Reply::refused(code),
            Err(error) => {
                debug!(%error, "upstream failed");
                Reply::refused(ResponseCode::ServFail)
            }
        }
    }
}
