// The application's collections. permcached reads them as schema.toml describes, and the plugin restricts lists of notes.
import mongoose from 'mongoose'
import { permissions } from './permissions.js'

const { Schema } = mongoose
const id = Schema.Types.ObjectId

const file = new Schema({ name: String, owner_id: id, folder_id: id, is_deleted: Boolean })
const folder = new Schema({ name: String, owner_id: id, parent_id: id })
const share = new Schema({ file_id: id, folder_id: id, user_id: id, expires_at: Date })
const note = new Schema({ title: String, owner_id: id, shared_with: [{ user_id: id, level: String, _id: false }] })
// Every query of notes has a restriction, or a reason for having none.
note.plugin(permissions.mongoose({ type: 'note', strict: true }))

// permcached looks documents up by these fields.
share.index({ file_id: 1 })
share.index({ folder_id: 1 })
share.index({ user_id: 1 })
folder.index({ parent_id: 1 })
folder.index({ owner_id: 1 })
file.index({ owner_id: 1 })
file.index({ folder_id: 1 })
note.index({ owner_id: 1 })
note.index({ 'shared_with.user_id': 1 })

export const User = mongoose.model('User', new Schema({ name: String, is_active: Boolean }))
export const File = mongoose.model('File', file)
export const Folder = mongoose.model('Folder', folder)
export const Share = mongoose.model('Share', share)
export const Note = mongoose.model('Note', note)
