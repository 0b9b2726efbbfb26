//! `GET /docs`: a page to read about the endpoints and to try them. All it needs is in the program.

use std::io::{Cursor, Read};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

use super::answer::{ErrorBody, HttpProblem, bytes_of};

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>foreshock: endpoints</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="endpoints"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"#;

/// Without `validatorUrl` the page would show a badge from another host.
const START: &str = r##"SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#endpoints",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"##;

/// The browser holds the page to it: nothing comes from another host.
const FROM_HERE_ONLY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:";

/// A page to read about these endpoints and to try them, which works without a network.
#[utoipa::path(get, path = "/docs", tag = "about", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
))]
pub async fn page() -> Response {
    let mut response = bytes_of("text/html; charset=utf-8", StatusCode::OK, PAGE);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(FROM_HERE_ONLY));
    response
}

/// What the page at `/docs` is made of.
#[utoipa::path(get, path = "/docs/{file}", tag = "about",
    params(("file" = String, Path, description = "The name of the file", example = "swagger-ui.css")),
    responses(
        (status = 200, description = "The file", body = String, content_type = "application/octet-stream"),
        (status = 404, description = "No such file", body = ErrorBody,
            example = json!({"error": "there is nothing at /docs/none.js"})),
    )
)]
pub async fn file(Path(name): Path<String>) -> Result<Response, HttpProblem> {
    let mut response = match &*name {
        "start.js" => bytes_of("text/javascript", StatusCode::OK, START),
        "swagger-ui.css" => vendored("text/css", &name)?,
        "swagger-ui-bundle.js" => vendored("text/javascript", &name)?,
        "favicon-32x32.png" => vendored("image/png", &name)?,
        _ => return Err(nothing(&name)),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}

fn vendored(kind: &'static str, name: &str) -> Result<Response, HttpProblem> {
    unpacked(name).map(|file| bytes_of(kind, StatusCode::OK, file)).ok_or_else(|| nothing(name))
}

/// A file of Swagger UI.
fn unpacked(name: &str) -> Option<Vec<u8>> {
    type Archive = ZipArchive<Cursor<&'static [u8]>>;
    static ARCHIVE: LazyLock<Option<Archive>> =
        LazyLock::new(|| ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).ok());
    // Its folder has the version in its name.
    let mut archive = ARCHIVE.clone()?;
    let ending = format!("/dist/{name}");
    let path = archive.file_names().flatten().find(|path| path.ends_with(&ending))?.into_owned();
    let mut bytes = Vec::new();
    archive.by_name(&path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn nothing(name: &str) -> HttpProblem {
    HttpProblem::new(StatusCode::NOT_FOUND, format!("there is nothing at /docs/{name}"))
}
