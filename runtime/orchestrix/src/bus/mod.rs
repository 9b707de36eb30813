//! How committed events leave the system.

pub mod cloudevent;
