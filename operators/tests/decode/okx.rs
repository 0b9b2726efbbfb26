//! What OKX says: known by its shape, and ignored so far.

use foreshock_operators::venues::detect;
use foreshock_operators::venues::okx::OKX;

use crate::decode::run::check;

#[test]
fn okx_data_is_ignored_and_its_acknowledgements_are_control_messages() {
    let data = r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"px":"42219.9","sz":"0.1"}]}"#;
    let ack = r#"{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#;
    let request = r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}"#;
    check(OKX, data, "ignored");
    for control in [ack, request, "ping", "pong", r#"{"event":"error","code":"60012"}"#] {
        check(OKX, control, "control");
    }
    check(OKX, r#"{"arg":{"channel":"trades"}}"#, "refused wrong_type");
    check(OKX, r#"{"arg":{"channel":"trades"},"data":{}}"#, "refused wrong_type");
    (1..data.len()).for_each(|cut| check(OKX, &data[..cut], "refused broken_json"));
    assert_eq!(detect(data.as_bytes()), Some(OKX));
    assert_eq!(detect(ack.as_bytes()), Some(OKX));
}
