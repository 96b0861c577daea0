//! The index: where each object of a backup is. Written as the frames go by, read whole before anything is restored.

use super::Error;
use super::frame::{Frame, FrameEntry, ObjectLine};
use super::lines::{LineWriter, each_line};
use crate::id::Digest;
use crate::resource::{ObjectName, check_namespace, check_object_name};
use crate::rules::owners::Uid;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

const WHAT: &str = "the index";

/// The last line: the sums, and where the last frame of `objects.tar.zst` stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Where the end-of-archive frame begins.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Frames before it.
    pub frames: u64,
    /// Objects in all.
    pub objects: u64,
}

#[derive(Serialize)]
enum MarkLine<'a> {
    #[serde(rename = "frame")]
    Frame(&'a FrameEntry),
    #[serde(rename = "end")]
    End(&'a End),
}

/// Writes the index while frames are appended to `objects.tar.zst`.
pub struct IndexWriter {
    lines: LineWriter,
    offset: u64,
    frames: u64,
    objects: u64,
}

impl IndexWriter {
    /// An index without frames.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { lines: LineWriter::new()?, offset: 0, frames: 0, objects: 0 })
    }

    /// Notes a frame that stands next in `objects.tar.zst`. Returns what of the index is ready to be stored.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn frame(&mut self, frame: &Frame) -> Result<Bytes, Error> {
        let size = frame.bytes.len() as u64;
        let entry = FrameEntry {
            kind: frame.kind.clone(),
            offset: self.offset,
            size,
            tar_size: frame.tar_size,
            sha256: frame.sha256,
            objects: frame.objects,
        };
        self.lines.line(&MarkLine::Frame(&entry))?;
        self.lines.lines(&frame.lines)?;
        self.offset += size;
        self.frames += 1;
        self.objects += frame.objects;
        Ok(self.lines.ready())
    }

    /// Objects noted so far.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// Notes the end-of-archive frame and closes the index. Returns the rest of it.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn finish(mut self, end_of_archive: &[u8]) -> Result<Bytes, Error> {
        let end = End {
            offset: self.offset,
            size: end_of_archive.len() as u64,
            sha256: Digest::of(end_of_archive),
            frames: self.frames,
            objects: self.objects,
        };
        self.lines.line(&MarkLine::End(&end))?;
        self.lines.finish()
    }
}

/// The number of no namespace.
const NOWHERE: u32 = u32::MAX;

/// Where an object is. Small, since a restore holds one for each object of the backup.
#[derive(Clone, Debug)]
pub struct Entry {
    uid: Option<Uid>,
    /// A number, as API servers of Kubernetes count; 0 where it is none, or nothing is known of it.
    resource_version: u64,
    /// Where its name begins in [`Index::names`].
    name: u32,
    name_length: u16,
    /// [`NOWHERE`] for cluster-scoped objects.
    namespace: u32,
    frame: u32,
    offset: u32,
    size: u32,
}

impl Entry {
    /// `metadata.uid` in the cluster that was backed up.
    pub fn uid(&self) -> Option<&Uid> {
        self.uid.as_ref()
    }

    /// Whether this is the very state in which another list or index has the object: the same object, not written since.
    pub fn is_state(&self, uid: &Uid, resource_version: u64) -> bool {
        self.uid.as_ref() == Some(uid) && self.resource_version != 0 && self.resource_version == resource_version
    }

    /// `metadata.resourceVersion` when it was backed up; 0 where that isn't a number.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The number of its frame in [`Index::frames`].
    pub fn frame(&self) -> usize {
        self.frame as usize
    }

    /// Bytes of its JSON.
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }
}

/// The index of a backup, in memory.
#[derive(Debug, Default)]
pub struct Index {
    frames: Vec<FrameEntry>,
    namespaces: Vec<Box<str>>,
    entries: Vec<Entry>,
    /// All names, one behind the other: each of its own would take as much again.
    names: String,
}

impl Index {
    /// Reads a stored index, after comparing it with the manifest's digest.
    ///
    /// # Errors
    /// [`Error::Damaged`] when anything in it disagrees with itself, the manifest or the API server's rules for names.
    pub fn read(compressed: &[u8], sha256: Digest, objects: u64) -> Result<Self, Error> {
        let found = Digest::of(compressed);
        if found != sha256 {
            return Err(Error::damaged(WHAT, format!("its SHA-256 is {found}, the manifest says {sha256}")));
        }
        let mut reader = IndexReader { expected: objects, ..IndexReader::default() };
        each_line(WHAT, compressed, |line| reader.line(line))?;
        reader.finish()
    }

    /// The frames, in their order in `objects.tar.zst`.
    pub fn frames(&self) -> &[FrameEntry] {
        &self.frames
    }

    /// All objects, by frame.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The namespace of an object; `None` for cluster-scoped ones.
    pub fn namespace(&self, entry: &Entry) -> Option<&str> {
        self.namespaces.get(entry.namespace as usize).map(|name| &**name)
    }

    /// `metadata.name` of an object.
    pub fn name(&self, entry: &Entry) -> &str {
        let start = entry.name as usize;
        self.names.get(start..start + usize::from(entry.name_length)).unwrap_or_default()
    }

    /// Namespace and name of an object.
    pub fn object_name(&self, entry: &Entry) -> ObjectName {
        ObjectName::new(self.namespace(entry), self.name(entry))
    }

    /// The frame of an object.
    pub fn frame(&self, entry: &Entry) -> &FrameEntry {
        &self.frames[entry.frame as usize]
    }

    /// The numbers of the objects of a frame: they stand together.
    pub fn of_frame(&self, frame: usize) -> Range<usize> {
        let before = |limit: usize| self.entries.partition_point(|entry| entry.frame() < limit);
        before(frame)..before(frame.saturating_add(1))
    }

    /// The frames that hold any of these objects.
    pub fn frames_of(&self, numbers: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut next = numbers.first().copied();
        let frames = std::iter::from_fn(|| {
            let frame = self.entries.get(next?)?.frame();
            next = numbers.range(self.of_frame(frame).end..).next().copied();
            Some(frame)
        });
        frames.collect()
    }

    /// The JSON of an object in its opened frame.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the index points outside the frame.
    pub fn object<'a>(&self, entry: &Entry, tar: &'a [u8]) -> Result<&'a [u8], Error> {
        self.frame(entry).object(tar, u64::from(entry.offset), u64::from(entry.size))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyLine {
    frame: Option<FrameEntry>,
    end: Option<End>,
}

#[derive(Default)]
struct IndexReader {
    index: Index,
    namespaces: HashMap<String, u32>,
    expected: u64,
    /// Objects of the current frame still to come.
    missing: u64,
    /// Where the objects of the current frame ended so far.
    position: u64,
    end: Option<End>,
}

impl IndexReader {
    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        if self.end.is_some() {
            return Err(Error::damaged(WHAT, "lines follow its end"));
        }
        if self.missing > 0 {
            return self.object(line);
        }
        let any: AnyLine = serde_json::from_slice(line).map_err(|error| Error::damaged(WHAT, error.to_string()))?;
        match any {
            AnyLine { frame: Some(frame), .. } => self.frame(frame),
            AnyLine { end: Some(end), .. } => {
                self.end = Some(end);
                Ok(())
            }
            _ => Err(Error::damaged(WHAT, "a line is neither a frame nor the end")),
        }
    }

    fn frame(&mut self, frame: FrameEntry) -> Result<(), Error> {
        let expected = self.index.frames.last().map_or(0, |last| last.offset + last.size);
        if frame.offset != expected {
            return Err(Error::damaged(WHAT, "its frames don't follow each other"));
        }
        if frame.tar_size > super::frame::FRAME_LIMIT {
            return Err(Error::damaged(WHAT, format!("a frame of {} bytes is too large", frame.tar_size)));
        }
        if frame.objects == 0 || frame.objects > self.expected - self.index.entries.len() as u64 {
            return Err(Error::damaged(WHAT, "a frame's number of objects can't be right"));
        }
        self.missing = frame.objects;
        self.position = 0;
        self.index.frames.push(frame);
        Ok(())
    }

    fn object(&mut self, line: &[u8]) -> Result<(), Error> {
        let damaged = |why: String| Error::damaged(WHAT, why);
        let line: ObjectLine<'_> = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        let Some(frame) = self.index.frames.last() else {
            return Err(damaged("an object stands before the first frame".to_owned()));
        };
        let name = |error: crate::resource::NameError| {
            damaged(format!("`{}` can't be a name: {error}", line.name.escape_debug()))
        };
        check_object_name(&line.name).map_err(name)?;
        line.ns.as_deref().map(check_namespace).transpose().map_err(name)?;
        if line.ns.is_some() != frame.kind.namespaced {
            return Err(damaged(format!("an object of `{}` has the wrong scope", frame.kind)));
        }
        let end = line.offset.checked_add(line.size).filter(|end| *end <= frame.tar_size);
        let (Some(end), true) = (end, line.offset >= self.position) else {
            return Err(damaged("an object's place can't be right".to_owned()));
        };
        let namespace = line.ns.as_deref().map_or(Ok(NOWHERE), |namespace| self.intern(namespace))?;
        let small = |number: u64| u32::try_from(number).map_err(|_| damaged("a number is too large".to_owned()));
        let names = &mut self.index.names;
        let start = small(names.len() as u64)?;
        names.push_str(&line.name);
        self.index.entries.push(Entry {
            name: start,
            name_length: u16::try_from(line.name.len()).map_err(|_| damaged("a name is too long".to_owned()))?,
            uid: (!line.uid.is_empty()).then(|| Uid::parse(&line.uid)),
            resource_version: line.rv.parse().unwrap_or(0),
            namespace,
            frame: small(self.index.frames.len() as u64 - 1)?,
            offset: small(line.offset)?,
            size: small(line.size)?,
        });
        self.position = end;
        self.missing -= 1;
        Ok(())
    }

    fn intern(&mut self, namespace: &str) -> Result<u32, Error> {
        if let Some(number) = self.namespaces.get(namespace) {
            return Ok(*number);
        }
        let number = u32::try_from(self.index.namespaces.len()).ok().filter(|number| *number != NOWHERE);
        let number = number.ok_or_else(|| Error::damaged(WHAT, "it has too many namespaces"))?;
        self.index.namespaces.push(namespace.into());
        self.namespaces.insert(namespace.to_owned(), number);
        Ok(number)
    }

    fn finish(mut self) -> Result<Index, Error> {
        let Some(end) = self.end else { return Err(Error::damaged(WHAT, "its end is missing")) };
        let objects = self.index.entries.len() as u64;
        if self.missing > 0 || end.objects != objects || objects != self.expected {
            return Err(Error::damaged(
                WHAT,
                format!("it holds {objects} objects, the manifest says {}", self.expected),
            ));
        }
        if end.frames != self.index.frames.len() as u64 {
            return Err(Error::damaged(WHAT, "its number of frames is wrong"));
        }
        self.index.entries.shrink_to_fit();
        self.index.names.shrink_to_fit();
        Ok(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::encoders::Encoders;
    use crate::archive::frame::{FrameBuilder, Object, end_of_archive};
    use crate::resource::Kind;

    fn kind(resource: &str, namespaced: bool) -> Kind {
        Kind { group: String::new(), version: "v1".into(), kind: "X".into(), resource: resource.into(), namespaced }
    }

    /// A small archive: objects and index.
    fn written() -> (Vec<u8>, Vec<u8>) {
        let (mut objects, mut index) = (Vec::new(), Vec::new());
        let mut writer = IndexWriter::new().unwrap();
        for (kind, namespace) in [(kind("secrets", true), Some("shop")), (kind("nodes", false), None)] {
            let mut builder = FrameBuilder::new(&kind, &Encoders::default());
            for name in ["a", "b"] {
                let json = format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}");
                let object = Object {
                    namespace,
                    name,
                    uid: "0b9ad8c5-5b5b-4b8b-9df0-6c2f4b0c9e43",
                    resource_version: "",
                    json: json.as_bytes(),
                    lacks_type: false,
                };
                builder.push(&object).unwrap();
            }
            let frame = builder.take().unwrap().unwrap().compress().unwrap();
            index.extend_from_slice(&writer.frame(&frame).unwrap());
            objects.extend_from_slice(&frame.bytes);
        }
        let end = end_of_archive().unwrap();
        index.extend_from_slice(&writer.finish(&end).unwrap());
        objects.extend_from_slice(&end);
        (objects, index)
    }

    fn read(index: &[u8], objects: u64) -> Result<Index, Error> {
        Index::read(index, Digest::of(index), objects)
    }

    #[test]
    fn every_object_is_found() {
        let (objects, index) = written();
        let index = read(&index, 4).unwrap();
        let mut found = Vec::new();
        for entry in index.entries() {
            let frame = index.frame(entry);
            let tar = frame.open(&objects[frame.offset as usize..][..frame.size as usize]).unwrap();
            let json: serde_json::Value = serde_json::from_slice(index.object(entry, &tar).unwrap()).unwrap();
            assert_eq!(json["metadata"]["name"], index.name(entry));
            found.push(format!("{} {}", frame.kind, index.object_name(entry)));
        }
        assert_eq!(found, ["secrets shop/a", "secrets shop/b", "nodes a", "nodes b"]);
    }

    #[test]
    fn frames_and_their_objects_are_found_from_one_another() {
        let (_, index) = written();
        let index = read(&index, 4).unwrap();
        assert_eq!([0, 1, 2].map(|frame| index.of_frame(frame)), [0..2, 2..4, 4..4]);
        for (numbers, frames) in
            [(&[0, 1, 2, 3][..], &[0, 1][..]), (&[1], &[0]), (&[3], &[1]), (&[1, 2], &[0, 1]), (&[], &[]), (&[9], &[])]
        {
            let found = index.frames_of(&numbers.iter().copied().collect());
            assert_eq!(found.into_iter().collect::<Vec<_>>(), frames, "{numbers:?}");
        }
    }

    #[test]
    fn what_disagrees_is_refused() {
        let (_, index) = written();
        assert!(read(&index, 3).is_err(), "fewer objects in the manifest");
        assert!(read(&index, 5).is_err(), "more objects in the manifest");
        assert!(Index::read(&index, Digest::of(b""), 4).is_err(), "another digest");
        let text = String::from_utf8(zstd::decode_all(&*index).unwrap()).unwrap();
        let changed = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            zstd::encode_all(text.replacen(from, to, 1).as_bytes(), 1).unwrap()
        };
        for (from, to) in [
            ("\"ns\":\"shop\"", "\"ns\":\"../..\""),
            ("\"name\":\"a\"", "\"name\":\"..\""),
            ("\"ns\":\"shop\",", ""),
            ("\"offset\":512", "\"offset\":5120000"),
            ("\"offset\":1536", "\"offset\":512"),
            ("\"offset\":0", "\"offset\":1"),
            ("\"objects\":2", "\"objects\":3"),
            ("\"objects\":2", "\"objects\":18446744073709551615"),
            ("\"frames\":2", "\"frames\":1"),
            ("{\"end\"", "{\"ende\""),
        ] {
            assert!(matches!(read(&changed(from, to), 4), Err(Error::Damaged { .. })), "{from} -> {to}");
        }
        let with_unknown_field = changed("\"ns\":\"shop\"", "\"new\":1,\"ns\":\"shop\"");
        assert!(read(&with_unknown_field, 4).is_ok(), "unknown fields are ignored");
    }
}
