//! Extents that lost are taken back at once.

use namespace::NewExtent;

use super::Extents;

impl Extents {
    /// Gives up an extent of this session that no row names and none ever will, and frees what it takes now instead of at
    /// the next sweep. What cannot be deleted, or lies on a disk that is away, is left to that.
    pub async fn discard(&self, extent: &NewExtent) {
        // While it counts as in flight nobody else touches its fragments.
        for group in self.placement.groups().iter().filter(|group| group.id == extent.group) {
            for (index, slot) in group.present() {
                let Some(store) = &slot.store else { continue };
                let id = group.fragment(extent.id, extent.layout, index);
                if let Err(error) = store.delete(vec![id]).await {
                    tracing::debug!(extent = %extent.id, %error, "an extent that nobody names was not deleted");
                }
            }
        }
        self.abandoned(extent.id);
    }
}
