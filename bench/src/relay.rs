//! The floor: the gateway's HTTP stack and settings, and nothing else. Bytes pass unread.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use awc::{Client, Connector};

/// Largest body taken in; the default of 256 KiB is less than what a gateway would pass on.
const BODY_LIMIT: usize = 32 << 20;

/// As the gateway's.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Serves on `127.0.0.1:port` until the process is killed.
pub(crate) fn serve(port: u16, upstream: String) -> Result<(), String> {
    let upstream = web::Data::new(upstream);
    let server = HttpServer::new(move || {
        let client = Client::builder()
            .connector(Connector::new().limit(0))
            .disable_timeout()
            .disable_redirects()
            .finish();
        App::new()
            .app_data(upstream.clone())
            .app_data(web::ThinData(client))
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .default_service(web::to(pass))
    })
    .workers(1)
    .backlog(4096)
    .max_connections(usize::MAX)
    .client_request_timeout(HEAD_LIMIT)
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .bind(("127.0.0.1", port))
    .map_err(|error| format!("the relay cannot listen: {error}"))?;
    actix_web::rt::System::new()
        .block_on(server.run())
        .map_err(|error| format!("the relay failed: {error}"))
}

async fn pass(
    request: HttpRequest,
    body: web::Bytes,
    client: web::ThinData<Client>,
    upstream: web::Data<String>,
) -> HttpResponse {
    let url = format!("{}{}", upstream.as_str(), request.uri());
    let sent = client
        .request(request.method().clone(), url)
        .no_decompress()
        .content_type("application/json")
        .send_body(body)
        .await;
    let Ok(answer) = sent else {
        return HttpResponse::BadGateway().finish();
    };
    let mut passed = HttpResponse::build(answer.status());
    if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
        passed.insert_header((header::CONTENT_TYPE, kind.clone()));
    }
    let length = answer.headers().get(header::CONTENT_LENGTH);
    if let Some(length) = length.and_then(|value| value.to_str().ok()?.parse().ok()) {
        passed.no_chunking(length);
    }
    passed.streaming(answer)
}
