//! What a server may ask of us: nothing. It may say that its tools have changed.
#![expect(
    deprecated,
    reason = "sampling and roots are on their way out; servers ask for them still"
)]

use rmcp::model::{
    ClientConfig, CreateMessageRequestMethod, CreateMessageRequestParams, CreateMessageResult,
    ElicitRequestParams, ElicitResult, ErrorCode, ErrorData, Implementation, JsonObject,
    ListRootsRequestMethod, ListRootsResult, ProtocolVersion, TASKS_EXTENSION_ID,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ClientHandler, RoleClient};

use crate::mcp::net::Progress;

/// The client's side of a session.
#[derive(Debug)]
pub(super) struct Refuser {
    progress: Progress,
    version: ProtocolVersion,
}

impl Refuser {
    pub(super) fn new(progress: Progress, version: ProtocolVersion) -> Self {
        Self { progress, version }
    }
}

impl ClientHandler for Refuser {
    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Err(ErrorData::method_not_found::<CreateMessageRequestMethod>())
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListRootsRequestMethod>())
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let message = "elicitation is not served";
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.progress.changed();
    }

    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.protocol_version = self.version.clone();
        let tasks = (TASKS_EXTENSION_ID.to_owned(), JsonObject::new());
        info.capabilities.extensions = Some([tasks].into());
        info.client_info = Implementation::new("vllm-responses", env!("CARGO_PKG_VERSION"));
        info
    }
}
