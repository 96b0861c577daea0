//! With whom a snapshot is shared: the one attribute of a snapshot that can be changed.

use super::query::Query;
use super::{Asked, Refusal, State, refuse, snapshots};

/// Accounts in one request.
const MOST: usize = 500;

impl State {
    /// Refuses what is done to a snapshot that isn't the caller's. The code where it is shared isn't documented for snapshots: it is
    /// that of other things which aren't one's own.
    pub(super) fn owned(&mut self, asked: Asked<'_>, id: &str) -> Result<(), Refusal> {
        match self.region(asked.region).snapshots.get(id) {
            Some(snapshot) if snapshot.account == asked.account => Ok(()),
            Some(snapshot) if snapshot.is_visible_to(asked.account) => {
                refuse("AuthFailure", format!("Not authorized for snapshot: {id}"))
            }
            _ => snapshots::unknown(id),
        }
    }

    pub(crate) fn describe_snapshot_attribute(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let id = query.required("SnapshotId")?.to_owned();
        if query.required("Attribute")? != "createVolumePermission" {
            return refuse("InvalidParameterValue", "only createVolumePermission is modelled");
        }
        self.owned(asked, &id)?;
        let shared = &self.region(asked.region).snapshots[&id].shared_with;
        let items: String = shared.iter().map(|account| format!("<item><userId>{account}</userId></item>")).collect();
        Ok(format!("<snapshotId>{id}</snapshotId><createVolumePermission>{items}</createVolumePermission>"))
    }

    pub(crate) fn modify_snapshot_attribute(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let id = query.required("SnapshotId")?.to_owned();
        let listed = |what: &str| {
            let account = |number: u32| query.get(&format!("CreateVolumePermission.{what}.{number}.UserId"));
            let mut accounts: Vec<String> = (1..).map_while(account).map(str::to_owned).collect();
            if query.get("OperationType") == Some(&what.to_lowercase()) {
                accounts.extend(query.list("UserId").into_iter().map(str::to_owned));
            }
            accounts
        };
        let (add, remove) = (listed("Add"), listed("Remove"));
        match (add.len(), remove.len()) {
            (0, 0) => return refuse("MissingParameter", "No accounts were given"),
            (1.., 1..) => return refuse("InvalidParameterCombination", "You can't add and remove in one operation"),
            (some, others) if some + others > MOST => {
                return refuse("InvalidParameterValue", "at most 500 modifications");
            }
            _ => (),
        }
        let is_account = |text: &String| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if let Some(wrong) = add.iter().chain(&remove).find(|account| !is_account(account)) {
            return refuse("InvalidUserID.Malformed", format!("Invalid user id: \"{wrong}\""));
        }
        self.owned(asked, &id)?;
        let default = super::default_key(asked.region, asked.account);
        let snapshot = self.region(asked.region).snapshots.get_mut(&id).expect("it is owned");
        if !add.is_empty() && snapshot.kms.as_ref() == Some(&default) {
            return refuse("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared");
        }
        snapshot.shared_with.extend(add);
        snapshot.shared_with.retain(|account| !remove.contains(account));
        Ok("<return>true</return>".to_owned())
    }
}
