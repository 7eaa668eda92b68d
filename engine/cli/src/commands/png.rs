pub fn of_svg(_svg: &str) -> anyhow::Result<Vec<u8>> {
    anyhow::bail!("not yet")
}
