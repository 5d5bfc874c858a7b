// The documents of the example: Alice's folders, files and notes. Bob is her guest in the folder Work.
import { File, Folder, Note, Share, User } from './models.js'

const id = (kind, number) => `${kind}${'0'.repeat(24 - kind.length - 1)}${number}`
const [alice, bob] = [id('a11ce', 1), id('b0b', 2)]

export async function seed() {
  await User.insertMany([
    { _id: alice, name: 'alice' },
    { _id: bob, name: 'bob' },
  ])
  await Folder.insertMany([
    { _id: id('f01d', 1), name: 'Work', owner_id: alice },
    { _id: id('f01d', 2), name: 'Clients', owner_id: alice, parent_id: id('f01d', 1) },
  ])
  await File.insertMany([
    { _id: id('f11e', 1), name: 'diary.txt', owner_id: alice },
    { _id: id('f11e', 2), name: 'contract.pdf', owner_id: alice, folder_id: id('f01d', 2) },
    { _id: id('f11e', 3), name: 'draft.docx', owner_id: alice, is_deleted: true },
  ])
  await Share.insertMany([{ folder_id: id('f01d', 1), user_id: bob }])
  await Note.insertMany([
    { _id: id('d0c', 1), title: 'Launch', owner_id: alice, shared_with: [{ user_id: bob, level: 'write' }] },
    { _id: id('d0c', 2), title: 'Private', owner_id: alice },
    { _id: id('d0c', 3), title: 'Groceries', owner_id: bob },
  ])
}
