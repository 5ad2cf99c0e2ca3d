//! The page that shows the document works with no network: nothing of it is elsewhere, and the browser is told so.

use crate::support::{Server, client, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_whole_and_refers_to_no_other_host() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    let moved = send(&client, "GET", &server.url("/docs"), &[], b"").await;
    // Relative, so that it holds behind a proxy that serves it under another path.
    assert_eq!((moved.status, moved.header("location")), (308, Some("docs/")));
    let page = send(&client, "GET", &server.url("/docs/"), &[], b"").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    let html = page.text();
    let references: Vec<_> = ["src=\"", "href=\""].iter().flat_map(|name| html.split(name).skip(1)).collect();
    assert!(references.len() >= 5, "{html}");
    for reference in references {
        let name = reference.split('"').next().unwrap().trim_start_matches("./");
        assert!(!name.contains("//"), "{name} is elsewhere");
        let file = send(&client, "GET", &server.url(&format!("/docs/{name}")), &[], b"").await;
        assert_eq!((file.status, file.body.is_empty()), (200, false), "{name}");
        // The styles' pictures are in them.
        if name.ends_with(".css") {
            let text = file.text();
            let pictures = text.split("url(").skip(1).map(|rest| rest.trim_start_matches(['"', '\'']));
            assert!(pictures.into_iter().all(|picture| picture.starts_with("data:")), "{name}");
        }
    }
    let script = send(&client, "GET", &server.url("/docs/swagger-initializer.js"), &[], b"").await.text();
    assert!(script.contains("\"../openapi.json\"") && script.contains("\"validatorUrl\": \"none\""), "{script}");
    assert!(!script.contains("://"), "{script}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_may_fetch_nothing_from_elsewhere() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    for path in ["/docs/", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"] {
        let file = send(&client(), "GET", &server.url(path), &[], b"").await;
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        for directive in policy.split("; ") {
            let mut sources = directive.split(' ').skip(1);
            let here = |source: &str| ["'none'", "'self'", "data:", "'unsafe-inline'"].contains(&source);
            assert!(sources.all(here), "{directive}");
            assert!(!directive.starts_with("script-src") || directive == "script-src 'self'", "{directive}");
        }
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    }
}
