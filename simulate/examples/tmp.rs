//! tmp
fn main() {
    let file = std::env::args().nth(1).unwrap();
    let s = keyfold_simulate::Scenario::parse(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    let t = std::time::Instant::now();
    let p = keyfold_simulate::simulate(&s).unwrap();
    eprintln!("{:?}", t.elapsed());
    println!("{}", if std::env::args().len() > 2 { p.to_html() } else { p.to_text() });
}
