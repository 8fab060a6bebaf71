"""Users' requests become training data: logs, filters, a teacher's answers, a review by a person."""
