from tests.support.asking import server, workplace

__all__ = ["server", "workplace"]
