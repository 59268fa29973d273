"""Scripts as people have them, and the same with this library, under the same planted faults."""
