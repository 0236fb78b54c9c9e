use std::io::{Read, Write};

use super::*;

#[test]
fn reads_the_header_of_filtered_lists() {
    let mut headers = HeaderMap::new();
    assert!(!is_filtered(&headers));
    // As Go writes it; names of headers are compared without regard to case.
    for (value, expected) in [("true", true), ("false", false)] {
        let name = "X-Consul-Results-Filtered-By-ACLs".parse::<hyper::header::HeaderName>();
        headers.insert(name.unwrap(), value.parse().unwrap());
        assert_eq!(is_filtered(&headers), expected);
    }
}

/// A proxy that refuses and shows what it was sent, as some do for debugging.
fn proxy_that_echoes() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = [0; 4096];
        let length = stream.read(&mut sent).unwrap();
        let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&sent[..length]).unwrap();
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_refusal_that_repeats_the_token_is_shown_without_it() {
    let token = "6b1d8f50-4b7e-11f0-8de9-0242ac120002";
    let options =
        ConsulOptions { token: Some(token.to_owned()), ..ConsulOptions::at(proxy_that_echoes()) };
    let client = Client::new(&options).unwrap();
    let reply = client.send(Call::new(Method::GET, "/v1/kv/weft")).await.unwrap();
    let error = reply.unexpected(&client.describe(), "read".to_owned()).to_string();
    assert!(error.contains("x-consul-token: <token>") && !error.contains(token), "{error}");
    assert!(!format!("{client:?}").contains(token));
}

#[test]
fn an_address_that_holds_a_secret_is_refused_without_it() {
    for address in [
        "http://user:secret@198.18.0.9:8500",
        "secret://198.18.0.9",
        "6b1d8f50-4b7e-11f0-8de9-0242ac120002",
    ] {
        let error = Client::new(&ConsulOptions::at(address)).unwrap_err().to_string();
        assert!(error.contains("address of the Consul"), "{error}");
        assert!(!error.contains("secret") && !error.contains("6b1d"), "{error}");
    }
}
