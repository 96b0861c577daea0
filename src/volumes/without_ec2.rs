//! In a build without the feature `ec2`: what needs EC2 says that it isn't there.

use super::Error;

/// EC2 in one region; there is none in this build.
#[derive(Debug)]
pub enum Ec2 {}

impl Ec2 {
    /// Says that this build has no EC2.
    ///
    /// # Errors
    /// Always.
    pub async fn open(_: &str) -> Result<Self, Error> {
        Err(Error::Setting("this build can't talk to EC2: it was made without the feature `ec2`".to_owned()))
    }
}
