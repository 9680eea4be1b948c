"""Recordings of event cameras: AEDAT 2.0 files, frames of counts, and a simulated camera."""
