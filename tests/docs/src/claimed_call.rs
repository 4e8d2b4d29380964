//! The picture of a claimed call: request, bids, grant, response.

use crate::svg::{Anchor, BLUE, GREY, PALE_BLUE, Svg};

const SIZE: (f64, f64) = (760.0, 380.0);
const CLIENT: f64 = 150.0;
const BUS: f64 = 350.0;
const ELM: f64 = 550.0;
const OAK: f64 = 690.0;
/// Notes have a white edge, since some stand on a lifeline.
const NOTE: &str =
    "fill=\"#555\" font-size=\"12\" stroke=\"white\" stroke-width=\"4\" paint-order=\"stroke\"";
/// Where the lifelines begin and end.
const LIFE: (f64, f64) = (56.0, 366.0);

/// Draws a call that two servers bid for, as an SVG.
pub(crate) fn draw() -> String {
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    svg.raw(&format!(
        "<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
         markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"{BLUE}\"/></marker></defs>"
    ));
    svg.bar((BUS - 10.0, LIFE.0), (20.0, LIFE.1 - LIFE.0), "#eee");
    for x in [CLIENT, ELM, OAK] {
        svg.line((x, LIFE.0), (x, LIFE.1), "stroke-dasharray=\"3 4\"");
    }
    for (x, name) in [(CLIENT, "client"), (BUS, "bus"), (ELM, "server elm"), (OAK, "server oak")] {
        svg.labelled_box((x - 52.0, 20.0), (104.0, 36.0), name);
    }

    to_servers(&mut svg, 90.0, "1. request");
    to_client(&mut svg, ELM, 130.0, "2. elm bids 0.8");
    to_client(&mut svg, OAK, 170.0, "2. oak bids 0.2");
    wait(&mut svg, 130.0, 230.0);
    to_servers(&mut svg, 230.0, "3. grant for elm");
    note(&mut svg, (OAK, 258.0), "drops the request");
    let handler = (238.0, 326.0);
    svg.raw(&format!(
        "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"{}\" fill=\"{PALE_BLUE}\" stroke=\"{BLUE}\"/>",
        ELM - 6.0,
        handler.0,
        handler.1 - handler.0,
    ));
    note(&mut svg, (ELM - 68.0, 286.0), "runs the handler");
    to_client(&mut svg, ELM, 326.0, "4. response");
    svg.finish()
}

/// Draws a frame that every server gets.
fn to_servers(svg: &mut Svg, y: f64, label: &str) {
    arrow(svg, CLIENT, OAK, y);
    // The head of the arrow at the other server.
    arrow(svg, ELM - 20.0, ELM, y);
    svg.text(((CLIENT + BUS) / 2.0, y - 6.0), Anchor::Middle, label);
}

/// Draws a frame that the client gets.
fn to_client(svg: &mut Svg, server: f64, y: f64, label: &str) {
    arrow(svg, server, CLIENT, y);
    svg.text(((CLIENT + BUS) / 2.0, y - 6.0), Anchor::Middle, label);
}

fn arrow(svg: &mut Svg, from: f64, to: f64, y: f64) {
    svg.raw(&format!(
        "<path d=\"M{from} {y} H{to}\" fill=\"none\" stroke=\"{BLUE}\" marker-end=\"url(#head)\"/>"
    ));
}

/// Draws how long the client waits for better bids, as a bracket to the left of its lifeline.
fn wait(svg: &mut Svg, from: f64, to: f64) {
    let (near, far) = (CLIENT - 6.0, CLIENT - 16.0);
    svg.raw(&format!("<path d=\"M{near} {from} H{far} V{to} H{near}\" fill=\"none\" stroke=\"{GREY}\"/>"));
    let middle = (from + to) / 2.0;
    for (line, y) in [("waits 200 ms", middle - 6.0), ("for better bids", middle + 10.0)] {
        svg.styled_text((far - 6.0, y), Anchor::End, "fill=\"#555\"", line);
    }
}

fn note(svg: &mut Svg, at: (f64, f64), text: &str) {
    svg.styled_text(at, Anchor::Middle, NOTE, text);
}
